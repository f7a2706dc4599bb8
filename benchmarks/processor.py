"""Which implementation of the head is fastest on this processor, and the speed and accuracy of bf16 if available.

    python benchmarks/processor.py [--rounds N] [-o benchmarks/results/processor.json]

SOLO R50 with seeded random weights (tests/golden/recipe.py) runs on one random image of 512x704, in float32 and INT8. In every
round each contender runs in a new process, in turn. The file keeps the figures of other processors and replaces those of this one.
`score_difference` is the mean difference from the category scores of the float32 network.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import llvmlite.binding as llvm
import numpy as np
import openvino as ov
import torch
from record import read_record, write_record
from solo_export.calibrate import Calibrator
from solo_export.onnx import categories_model, mask_kernels, masks_model
from solo_export.quantize import quantize
from solo_models.bundle import BundleContent, read_bundle, write_bundle
from solo_models.checkpoint import read_checkpoint
from solo_server.backends.cpu.network import open_network
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.backends.cpu.runtimes.openvino import OpenVinoRuntime
from solo_server.bench.machine import surroundings
from solo_server.system.processor import has_bf16
from tqdm import tqdm

HW = (512, 704)
RUNS = 5
"""Runs per process; the first does not count."""


@dataclass(frozen=True, slots=True)
class Contender:
    """precision: of the runtime; bundle: `fp32` or `int8`; for_host: whether kernels are compiled for this processor model."""

    engine: Literal["onnxruntime", "openvino"]
    bundle: str
    precision: str
    head: Literal["graph", "compiled"]
    for_host: bool = False

    @property
    def name(self) -> str:
        """Like `openvino, int8, head: compiled for this processor`."""
        return f"{self.engine}, {self.precision}, head: {self.head}{' for this processor' if self.for_host else ''}"


EXACT = Contender("openvino", "fp32", "fp32", "compiled")
CONTENDERS = (
    EXACT,
    Contender("openvino", "int8", "int8", "graph"),
    Contender("openvino", "int8", "int8", "compiled"),
    Contender("openvino", "int8", "int8", "compiled", for_host=True),
    Contender("onnxruntime", "int8", "int8", "graph"),
    Contender("onnxruntime", "int8", "int8", "compiled"),
)
BF16 = Contender("openvino", "fp32", "bf16", "graph")


def main() -> int:
    """Measure every contender that this processor supports, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("CONTENDER", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        json.dump(run_one(Contender(**json.loads(arguments.one[0])), Path(arguments.one[1])), sys.stdout)
        return 0
    figures = measure(contenders(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")), arguments.rounds)
    for name, row in figures.items():
        print(f"{name:<52}", *(f"{key} {value:g}" for key, value in row.items() if value is not None))
    if arguments.output:
        hardware = surroundings()["hardware"]
        here = {"hardware": hardware, "rounds": arguments.rounds, "contenders": figures}
        others = [m for m in read_record(arguments.output).get("machines", []) if not _same(m["hardware"], hardware)]
        write_record(arguments.output, {"input": HW, "machines": [*others, here]})
    return 0


def contenders(capabilities: list[str]) -> list[Contender]:
    """The contenders that a processor supports. capabilities: of OpenVINO's device CPU."""
    return [*CONTENDERS, *([BF16] if has_bf16(capabilities) else [])]


def measure(chosen: list[Contender], rounds: int) -> dict[str, dict[str, float | None]]:
    """Medians over all rounds, in milliseconds per image."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=rounds * len(chosen), unit="process") as progress:
        make_bundles(Path(folder))
        for _ in range(rounds):
            for contender in chosen:
                found[contender.name].append(_in_a_process(contender, folder))
                progress.update()
        exact = np.load(_scores(Path(folder), EXACT))
        lost = {c.name: float(np.abs(np.load(_scores(Path(folder), c)) - exact).mean()) for c in chosen}
    return {name: {**_medians(runs), "score_difference": float(f"{lost[name]:.2g}")} for name, runs in found.items()}


def run_one(contender: Contender, folder: Path) -> dict[str, float]:
    """In the child process: milliseconds of the categories (with backbone and neck) and of the mask towers of all levels."""
    bundle, pool = read_bundle(folder / contender.bundle), Pool()
    runtime = OrtRuntime() if contender.engine == "onnxruntime" else OpenVinoRuntime(contender.precision)
    network = open_network(bundle, runtime, pool, contender.head)
    images, image_hw = _image()
    times: dict[str, list[float]] = {"categories_ms": [], "towers_ms": []}
    for _ in range(RUNS):
        start = perf_counter()
        output = network.run(images, image_hw)[0]
        middle = perf_counter()
        output.mask_features(range(len(bundle.spec.grids)))
        times["categories_ms"].append((middle - start) * 1e3)
        times["towers_ms"].append((perf_counter() - middle) * 1e3)
    np.save(_scores(folder, contender), output.scores)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def make_bundles(folder: Path) -> None:
    """Write `fp32` and `int8` of the seeded network; INT8 is calibrated on the same image, which is enough for timing."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "golden"))
    from recipe import seeded_state_dict

    state = {name: torch.from_numpy(values) for name, values in seeded_state_dict("solo").items()}
    torch.save({"state_dict": state, "meta": {}}, folder / "network.pth")
    network = read_checkpoint(folder / "network.pth").network
    categories, masks = categories_model(network), masks_model(network)
    content = BundleContent(
        name="solo-r50",
        spec=network.spec,
        categories=categories.SerializeToString(),
        masks=masks.SerializeToString(),
        kernels=mask_kernels(network),
        provenance={"layout": "own"},
        parity={},
    )
    write_bundle(folder / "fp32", content)
    ranges = _ranges(categories, masks)
    int8 = {"categories": quantize(categories, ranges[0]), "masks": quantize(masks, ranges[1])}
    quantized: dict[str, Any] = {name: model.SerializeToString() for name, model in int8.items()}
    write_bundle(folder / "int8", replace(content, precision="int8", **quantized))


def _ranges(categories: Any, masks: Any) -> list[dict[str, tuple[float, float]]]:
    calibrators = Calibrator(categories), Calibrator(masks)
    images, image_hw = _image()
    _, *levels = calibrators[0].run({"images": images, "image_hw": image_hw})
    for level in levels:
        calibrators[1].run({"level": level})
    return [calibrator.ranges() for calibrator in calibrators]


def _image() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 3, 12, 16), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, HW, mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy(), np.array([HW], np.int64)


def _in_a_process(contender: Contender, folder: str) -> dict[str, float]:
    environment = dict(os.environ)
    if contender.for_host:
        environment["NUMBA_CPU_NAME"] = llvm.get_host_cpu_name()
        environment["NUMBA_CPU_FEATURES"] = llvm.get_host_cpu_features().flatten()
    words = [sys.executable, __file__, "--one", json.dumps(asdict(contender)), folder]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _scores(folder: Path, contender: Contender) -> Path:
    return folder / f"{contender.name}.npy"


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(run[key] for run in runs), 1) for key in runs[0]}


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("cpu", "cores", "instructions"))


if __name__ == "__main__":
    sys.exit(main())
