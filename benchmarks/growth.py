"""How cost grows with network input, image size, instances, classes and batch size; one is changed at a time.

    python benchmarks/growth.py BUNDLE IMAGE [--rounds N] [-o RESULT.json]

Stages are medians in milliseconds over the rounds, in which the cases of a table take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
from record import write_record
from solo_export.onnx import export_graphs
from solo_models.bundle import BundleContent, as_bundle
from solo_models.network import SoloNetwork
from solo_models.spec import ModelSpec
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.head import CompiledHead
from solo_server.backends.cpu.pool import Pool
from solo_server.pipeline.pipeline import Pipeline
from solo_server.types import Query

INPUTS = ((426, 256), (640, 384), (852, 512), (1333, 800))
SCALES = (0.5, 1, 2, 3, 6)
INSTANCES = (1, 10, 50, 100)
CLASSES = (1, 80, 365)
BATCHES = (1, 2, 4)

Case = Callable[[], dict[str, float]]


def main() -> int:
    """Measure and print five tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    pipeline, image = Pipeline.open(arguments.bundle), cv2.imread(str(arguments.image))
    pipeline.warm_up()
    tables = {
        "network input": inputs(pipeline, image),
        "image": images(pipeline, image),
        "at most so many instances": instances(pipeline, image),
        "classes": classes(pipeline, image),
        "batch": batches(pipeline, image),
    }
    measured = {title: measure(title, cases, arguments.rounds) for title, cases in tables.items()}
    if arguments.output:
        about = {"model": pipeline.bundle.name, "engine": pipeline.backend.description, "rounds": arguments.rounds}
        write_record(arguments.output, {**about, "tables": measured})
    return 0


def measure(title: str, cases: Mapping[str, Case], rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each case, after one round to warm up."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for _ in range(rounds + 1):
        for name, case in cases.items():
            samples[name].append(case())
    print(f"\n{title}")
    table = {}
    for name, taken in samples.items():
        table[name] = {k: round(statistics.median(s[k] for s in taken[1:]), 1) for k in taken[0]}
        print(f"  {name:<12}", "  ".join(f"{k} {v:g}" for k, v in table[name].items()), flush=True)
    return table


def inputs(pipeline: Pipeline, image: Any) -> dict[str, Case]:
    """The same network at other input sizes."""
    found = {}
    for long_side, short_side in INPUTS:
        rules = replace(pipeline.bundle.spec.preprocess, long_side=long_side, short_side=short_side)
        bundle = replace(pipeline.bundle, spec=replace(pipeline.bundle.spec, preprocess=rules))
        sized = Pipeline(bundle, CpuBackend(bundle, pipeline.backend.engine))  # type: ignore[attr-defined]  # a CPU's
        found[f"{long_side}x{short_side}"] = _stages(sized, _jpeg(image))
    return found


def images(pipeline: Pipeline, image: Any) -> dict[str, Case]:
    """Enlarged images; the network's input stays the same."""
    found = {}
    for scale in SCALES:
        sized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        found[f"{sized.shape[1]}x{sized.shape[0]}"] = _stages(pipeline, _jpeg(sized))
    return found


def instances(pipeline: Pipeline, image: Any) -> dict[str, Case]:
    """Limits on the number of instances; and `none`, by a score threshold of 1."""
    body = _jpeg(image)
    found = {f"{n}": _stages(pipeline, body, Query(max_instances=n)) for n in INSTANCES}
    return {"none": _stages(pipeline, body, Query(score_threshold=1.0)), **found}


def classes(pipeline: Pipeline, image: Any) -> dict[str, Case]:
    """The category branch with other numbers of classes, on the same features."""
    prepared = pipeline.decode(_jpeg(image)).image
    levels = pipeline.infer([prepared])[0].levels  # type: ignore[attr-defined]  # of both engines
    found = {}
    for count in CLASSES:
        names = tuple(f"class {i}" for i in range(count))
        spec = ModelSpec(variant="solo", backbone="resnet18", class_names=names)
        graphs = export_graphs(SoloNetwork(spec).eval())
        files = (graphs.categories.SerializeToString(), graphs.masks.SerializeToString())
        head = CompiledHead(as_bundle(BundleContent("classes", spec, *files, graphs.kernels, {}, {})), Pool())
        found[f"{count}"] = _timed("category branch", lambda head=head: head.scores(levels))
    return found


def batches(pipeline: Pipeline, image: Any) -> dict[str, Case]:
    """Categories of several images in one call; milliseconds per image."""
    prepared = pipeline.decode(_jpeg(image)).image
    return {
        f"{n}": _timed("categories an image", lambda n=n: pipeline.infer([prepared] * n), divided_by=n) for n in BATCHES
    }


def _stages(pipeline: Pipeline, body: bytes, query: Query | None = None) -> Case:
    def case() -> dict[str, float]:
        result = pipeline.segment(body, query)
        return {**result.timings_ms, "instances": len(result.instances)}

    return case


def _timed(name: str, work: Callable[[], Any], divided_by: int = 1) -> Case:
    def case() -> dict[str, float]:
        start = perf_counter()
        work()
        return {name: (perf_counter() - start) * 1e3 / divided_by}

    return case


def _jpeg(image: Any) -> bytes:
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not done:
        raise ValueError("the image cannot be encoded")
    return bytes(np.asarray(encoded).tobytes())


if __name__ == "__main__":
    sys.exit(main())
