"""The CPU backend: a network in a CPU runtime, and post-processing on compiled kernels.

images ─► engine.run ─► category scores, level features ─► CpuPostprocessor.run ─► instances
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from solo_models.bundle import Bundle

from solo_server.backends.cpu.engine import Engine, ImageOutput
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.postprocess import CpuPostprocessor
from solo_server.backends.cpu.warm_up import warm_kernels
from solo_server.backends.stopwatch import Stopwatch
from solo_server.types import Geometry, Instance, PreparedImage, Query


class CpuBackend:
    """A network in a CPU runtime, and post-processing on compiled kernels. See `Backend`."""

    uses_cores = True
    max_batch = 1  # a batch takes as long as its images one by one: docs/performance.md
    stages = ("categories", "towers", "masks", "nms", "encode")

    def __init__(self, bundle: Bundle, engine: Engine, pool: Pool | None = None, max_concurrency: int = 1) -> None:
        self.engine, self.max_concurrency, self._levels = engine, max_concurrency, len(bundle.spec.grids)
        self._pool = pool or Pool()
        self.postprocessor = CpuPostprocessor(bundle.spec, bundle.kernels, self._pool)

    @property
    def description(self) -> str:
        """See `Backend.description`."""
        return self.engine.description

    def infer(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> Sequence[ImageOutput]:
        """See `Backend.infer`; queries are not used before `finish`."""
        pixels = np.stack([p.pixels for p in images])
        image_hw = np.array([p.geometry.resized_hw for p in images], np.int64)
        with self._pool.running():
            return self.engine.run(pixels, image_hw)

    def finish(self, output: ImageOutput, geometry: Geometry, query: Query, watch: Stopwatch) -> tuple[Instance, ...]:
        """See `Backend.finish`."""
        with self._pool.running():
            return self.postprocessor.run(output, geometry, query, watch)

    def warm_up(self, blank: PreparedImage) -> None:
        """Compile every kernel, then run the network, towers included: once alone, then `max_concurrency` times in parallel.

        The memory of `max_concurrency` images is thus allocated at the start, not under load.
        """
        warm_kernels()
        self._run_network(blank)
        with ThreadPoolExecutor(self.max_concurrency) as threads:
            list(threads.map(self._run_network, [blank] * self.max_concurrency))

    def _run_network(self, image: PreparedImage) -> None:
        self.infer([image], [Query()])[0].mask_features(range(self._levels))

    def close(self) -> None:
        """Nothing to release."""
