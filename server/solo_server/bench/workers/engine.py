"""`python -m solo_server.bench.workers.engine`: a bundle's network alone, at one padded size and several batch sizes.

The total is the categories and the mask towers of all levels, the worst case. Then each level's towers are timed again on their
own; that time is not part of the total.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from time import perf_counter, process_time

import numpy as np
from solo_models import arithmetic
from solo_models.bundle import BundleError

from solo_server.backends.cpu.backend import CpuBackend
from solo_server.bench.open_model import Model, open_pipeline
from solo_server.bench.protocol import Hello, Refused, TaskResult, WorkerSetup, run_worker
from solo_server.bench.workers.pipeline import hello_of
from solo_server.errors import SettingsError
from solo_server.pipeline.pipeline import Pipeline
from solo_server.types import UInt8


class EngineWorker:
    """A network and its batches of noise."""

    def __init__(self, model: Model, pipeline: Pipeline, batches: list[int], padded_hw: tuple[int, int]) -> None:
        noise = np.random.default_rng(0)
        self._model, self._pipeline, self._padded_hw = model, pipeline, padded_hw
        if not isinstance(pipeline.backend, CpuBackend):
            raise Refused(f"{pipeline.backend.description}: `solo selftest` times the network of a GPU stage by stage")
        self._engine = pipeline.backend.engine
        self._levels = range(len(pipeline.bundle.spec.grids))
        self._batches: list[UInt8] = [noise.integers(0, 256, (n, *padded_hw, 3), np.uint8) for n in batches]

    def hello(self) -> Hello:
        """See `Worker.hello`."""
        needed = arithmetic.needed(self._pipeline.bundle.spec, self._padded_hw)
        towers = {f"tower {level}": gflop for level, gflop in enumerate(needed.towers)}
        shared = needed.backbone + needed.neck + needed.categories
        gflop = {"categories": shared, "towers": sum(needed.towers), **towers, "total": needed.total}
        return replace(
            hello_of(self._model, self._pipeline), gflop={name: round(value, 4) for name, value in gflop.items()}
        )

    def run_task(self, index: int) -> TaskResult:
        """Run one batch through the whole network, then each level's towers alone."""
        images = self._batches[index]
        image_hw = np.array([self._padded_hw] * len(images), np.int64)
        start = perf_counter()
        outputs = self._engine.run(images, image_hw)
        categories = perf_counter()
        for output in outputs:
            output.mask_features(self._levels)
        end, cpu = perf_counter(), process_time()
        stages = {"categories": categories - start, "towers": end - categories}
        for level in self._levels:
            before = perf_counter()
            for output in outputs:
                output.mask_features([level])
            stages[f"tower {level}"] = perf_counter() - before
        return TaskResult({name: s * 1e3 for name, s in stages.items()}, 0, (end - start) * 1e3, process_time() - cpu)


def _open(setup: WorkerSetup) -> EngineWorker:
    try:
        model = Model.from_setup(setup)
        pipeline = open_pipeline(model, setup["threads"])
    except (BundleError, SettingsError) as problem:
        raise Refused(str(problem)) from problem
    return EngineWorker(model, pipeline, setup["batches"], tuple(setup["padded_hw"]))


if __name__ == "__main__":
    sys.exit(run_worker(_open))
