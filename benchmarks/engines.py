"""Which engine runs a bundle faster: the same picture through each of them in turn, in one process.

    python benchmarks/engines.py BUNDLE [PICTURE.jpg] [--threads N] [--rounds N] [-o RESULT.json]

A round takes the picture through every engine, in alternating order: the categories graph, then the mask towers of all levels.
Times are medians in milliseconds, by the clock and of the processor (all threads together; other work on the machine disturbs that
less).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from record import write_record
from solo_server.pipeline import Pipeline
from solo_server.types import PreparedPicture

ENGINES = ("onnxruntime", "openvino")
STEPS = ("categories", "masks")
PICTURE = Path(__file__).parents[1] / "tests" / "pictures" / "astronaut.jpg"


def main() -> int:
    """Measure both engines and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("picture", type=Path, nargs="?", default=PICTURE)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    pipelines = {e: Pipeline.open(arguments.bundle, engine=e, threads=arguments.threads) for e in ENGINES}
    first = pipelines[ENGINES[0]]
    picture = first.decode(arguments.picture.read_bytes()).picture
    times = measure(pipelines, picture, arguments.rounds)
    for name, row in times.items():
        print(f"{pipelines[name].engine.description:<60} {row}")
    if arguments.output:
        bundle = first.bundle
        about = {"model": bundle.name, "model_version": bundle.version, "precision": bundle.precision}
        run = {"input_hw": list(picture.geometry.padded_hw), "threads": arguments.threads, "rounds": arguments.rounds}
        engines = {pipelines[name].engine.description: row for name, row in times.items()}
        write_record(arguments.output, {**about, **run, "engines": engines})
    return 0


def measure(
    pipelines: dict[str, Pipeline], picture: PreparedPicture, rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Engine -> step -> `wall_ms` and `cpu_ms`, medians over the rounds after one to warm up."""
    found: dict[str, list[Any]] = {name: [] for name in pipelines}
    for number in range(rounds + 1):
        order = list(pipelines) if number % 2 else list(pipelines)[::-1]
        for name in order:
            found[name].append(one_round(pipelines[name], picture))
    return {
        name: {
            step: dict(zip(("wall_ms", "cpu_ms"), (round(float(v), 1) for v in values), strict=True))
            for step, values in zip(STEPS, np.median(rows[1:], axis=0), strict=True)
        }
        for name, rows in found.items()
    }


def one_round(pipeline: Pipeline, picture: PreparedPicture) -> list[list[float]]:
    """Milliseconds by the clock and of the processor, of each step."""
    clock = [(perf_counter(), process_time())]
    output = pipeline.infer([picture])[0]
    clock.append((perf_counter(), process_time()))
    for level in range(len(pipeline.bundle.spec.grids)):
        output.mask_features(level)
    clock.append((perf_counter(), process_time()))
    return (np.diff(clock, axis=0) * 1e3).tolist()


if __name__ == "__main__":
    sys.exit(main())
