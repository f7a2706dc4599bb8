"""The network alone on a GPU: our two graphs in ONNX Runtime's CUDA provider beside the plain network in PyTorch.

    python benchmarks/gpu_network.py -o benchmarks/results/gpu_h200_network.json

SOLO R50 with random weights, float16, at 896x512. PyTorch computes the full head (every mask of every cell), as the published
implementation does; ours stops at mask features, and the last layer of chosen cells is post-processing, which is not in here. Each
time is the median of runs that each wait for the GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from record import write_record
from solo_export.half import halve
from solo_export.onnx import categories_model, masks_model
from solo_models.network import SoloNetwork
from solo_models.spec import ModelSpec, PreprocessSpec
from solo_server.backends.gpu.bindings import Bindings, categories_bindings, masks_bindings
from solo_server.backends.gpu.network import BatchShape, level_groups

HW, TURNED_HW, BATCHES, RUNS = (512, 896), (896, 512), (1, 8), 30
SPEC = ModelSpec(
    variant="solo",
    backbone="resnet50",
    class_names=tuple(f"class {i}" for i in range(80)),
    preprocess=PreprocessSpec(long_side=852, short_side=512),
)
PROVIDER = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested", "use_tf32": "1"}
CHOICES = {"as served": {}, "tensor cores off": {"use_tf32": "0"}, "channels last": {"prefer_nhwc": "1"}}

Run = Callable[[], Any]


def bound(session: Any, bindings: Bindings, hw: tuple[int, int]) -> Run:
    """One run on random inputs that lie on the GPU."""
    random, binding, held = np.random.default_rng(0), session.io_binding(), []
    for tensor in bindings.inputs:
        values = {
            "uint8": lambda shape=tensor.shape: random.integers(0, 255, shape, dtype=np.uint8),
            "int64": lambda shape=tensor.shape: np.array([hw] * shape[0], np.int64),
            "float32": lambda shape=tensor.shape: random.standard_normal(shape, dtype=np.float32),
        }[tensor.dtype]()
        held.append(ort.OrtValue.ortvalue_from_numpy(values, "cuda", 0))
        binding.bind_ortvalue_input(tensor.name, held[-1])
    for tensor in bindings.outputs:
        held.append(ort.OrtValue.ortvalue_from_shape_and_type(tensor.shape, np.dtype(tensor.dtype), "cuda", 0))
        binding.bind_ortvalue_output(tensor.name, held[-1])
    return lambda: (session.run_with_iobinding(binding), held)


def timed_ms(runs: list[Run], count: int = RUNS) -> float:
    """Of all of `runs` together, three rounds first that are not counted."""
    taken = []
    for _ in range(3 + count):
        start = perf_counter()
        for run in runs:
            run()
        taken.append((perf_counter() - start) * 1e3)
    return round(median(taken[3:]), 3)


def onnxruntime_rows(graphs: tuple[bytes, bytes], name: str) -> list[dict[str, Any]]:
    """Both graphs with sessions for every shape, and what one session costs where shapes take turns."""

    def session(graph: bytes) -> Any:
        return ort.InferenceSession(graph, providers=[("CUDAExecutionProvider", PROVIDER | CHOICES[name])])

    groups, rows = range(len(level_groups(SPEC))), []
    for n in BATCHES:
        categories = session(graphs[0])
        one = bound(categories, categories_bindings(SPEC, BatchShape(n, HW)), HW)
        masks = [bound(session(graphs[1]), masks_bindings(SPEC, BatchShape(n, HW), g), HW) for g in groups]
        rows += [
            {"what": "categories", "batch": n, "ms": timed_ms([one])},
            {"what": "masks, a session for each group of levels", "batch": n, "ms": timed_ms(masks)},
        ]
    shared, turned = session(graphs[1]), categories_bindings(SPEC, BatchShape(1, TURNED_HW))
    levels = [bound(shared, masks_bindings(SPEC, BatchShape(1, HW), g), HW) for g in groups]
    both = [bound(categories, categories_bindings(SPEC, BatchShape(1, HW)), HW), bound(categories, turned, TURNED_HW)]
    rows += [
        {"what": "masks, one session for all groups", "batch": 1, "ms": timed_ms(levels, 5)},
        {"what": "categories, two sizes in turn in one session", "batch": 1, "ms": round(timed_ms(both, 5) / 2, 3)},
    ]
    return [{"by": f"onnxruntime, {name}", **row} for row in rows]


def torch_rows(network: SoloNetwork) -> list[dict[str, Any]]:
    """The plain network, eagerly."""
    torch.set_default_device("cuda")
    torch.backends.cudnn.benchmark = True
    network, rows = network.cuda(), []
    for name, half, last in (
        ("float32", False, False),
        ("float16", True, False),
        ("float16, channels last", True, True),
    ):
        network = network.to(memory_format=torch.channels_last if last else torch.contiguous_format)  # type: ignore[call-overload]
        for n in BATCHES:
            given = torch.randint(0, 255, (n, *HW, 3), dtype=torch.uint8), torch.tensor([HW] * n)

            def run(plain: SoloNetwork = network, given: Any = given, half: bool = half) -> None:
                with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
                    plain(*given)
                torch.cuda.synchronize()

            rows.append({"by": f"torch eager, {name}", "what": "full head", "batch": n, "ms": timed_ms([run])})
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    torch.manual_seed(7)
    network = SoloNetwork(SPEC).eval()
    graphs = tuple(halve(model(network)).SerializeToString() for model in (categories_model, masks_model))
    rows: list[dict[str, Any]] = []
    for more in (*(onnxruntime_rows(graphs, name) for name in CHOICES), torch_rows(network)):  # type: ignore[arg-type]
        rows += more
    for row in rows:
        print(f"{row['by']:34} {row['what']:46} batch {row['batch']}  {row['ms']:9.3f} ms", file=sys.stderr)
    write_record(
        arguments.output, {"network": "SOLO R50, float16", "padded_hw": HW, "versions_gpu": versions(), "rows": rows}
    )


def versions() -> dict[str, str]:
    """Of what runs on the GPU."""
    return {"torch": torch.__version__, "onnxruntime": ort.__version__, "gpu": torch.cuda.get_device_name(0)}


if __name__ == "__main__":
    main()
