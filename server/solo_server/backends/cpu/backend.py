"""What stands behind the pipeline: network and post-processing together, on a CPU or on a GPU.

    images of one padded size ─► infer, a batch at a time ─► outputs ─► finish, image by image, on any thread ─► instances

On a CPU `infer` is the network up to the category scores, and `finish` all the rest. On a GPU (`engine/cuda.py`) `infer` is
everything but the text of the encodings.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from solo_models.bundle import Bundle

from solo_server.backends.cpu.engine import Engine, ImageOutput
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.postprocess import CpuPostprocessor
from solo_server.backends.cpu.warm_up import warm_kernels
from solo_server.backends.stopwatch import Stopwatch
from solo_server.types import Geometry, Instance, PreparedImage, Query


class Backend(Protocol):
    """A loaded network with its post-processing. `finish` may be called from any thread, `infer` from `max_concurrency` threads."""

    @property
    def description(self) -> str:
        """Runtime, version, device and executed precision, for `/model` and the log."""
        ...

    @property
    def max_concurrency(self) -> int:
        """How many calls of `infer` may run at a time."""
        ...

    @property
    def uses_cores(self) -> bool:
        """Whether `infer` computes on the cores that decoding and finishing take too."""
        ...

    @property
    def max_batch(self) -> int:
        """How many images one call should be given at most, where no setting says otherwise."""
        ...

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages as answers tell them: first what `infer` takes, then the laps of `finish`."""
        ...

    def infer(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> Sequence[Any]:
        """Outputs of images of one padded size, which only `finish` of the same backend understands (hence `Any`).

        Raises:
            EngineFailure: the runtime or the device failed; `DeviceLost`: this process cannot go on.
        """
        ...

    def finish(self, output: Any, geometry: Geometry, query: Query, watch: Stopwatch) -> tuple[Instance, ...]:
        """Instances of one output, best first; `query` is the one that the image was inferred with.

        Raises:
            Cancelled: the image was cancelled; checked between stages, and between instances where these take long.
        """
        ...

    def warm_up(self, blank: PreparedImage) -> None:
        """Whatever is slow only once: compiling, building, planning; with an image of an ordinary size to try it on."""
        ...

    def close(self) -> None:
        """Give back what the process's end would not."""
        ...


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
        """See `Backend.infer`; what is asked for does not matter yet."""
        pixels = np.stack([p.pixels for p in images])
        image_hw = np.array([p.geometry.resized_hw for p in images], np.int64)
        with self._pool.at_work():
            return self.engine.run(pixels, image_hw)

    def finish(self, output: ImageOutput, geometry: Geometry, query: Query, watch: Stopwatch) -> tuple[Instance, ...]:
        """See `Backend.finish`."""
        with self._pool.at_work():
            return self.postprocessor.run(output, geometry, query, watch)

    def warm_up(self, blank: PreparedImage) -> None:
        """Compile every kernel, then run the whole network: once alone, and as often at a time as it will be.

        What so many images take of memory is taken now, not when they happen to meet.
        """
        warm_kernels()
        self._run_whole(blank)
        with ThreadPoolExecutor(self.max_concurrency) as threads:
            list(threads.map(self._run_whole, [blank] * self.max_concurrency))

    def _run_whole(self, image: PreparedImage) -> None:
        self.infer([image], [Query()])[0].mask_features(range(self._levels))

    def close(self) -> None:
        """Nothing to give back."""


class Replicas:
    """Several backends of one bundle as one: that many batches at a time, each on the backend that is idle. See `Backend`."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = tuple(backends)
        self._idle: SimpleQueue[int] = SimpleQueue()
        each = self._backends[0].max_concurrency
        for number in each * list(range(len(self._backends))):  # in turn: none has a second image before all have one
            self._idle.put(number)
        self.max_concurrency = each * len(self._backends)
        self.max_batch, self.stages = self._backends[0].max_batch, self._backends[0].stages
        self.uses_cores = self._backends[0].uses_cores

    @property
    def description(self) -> str:
        """See `Backend.description`."""
        return f"{len(self._backends)} x {self._backends[0].description}"

    def infer(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> Sequence[tuple[int, Any]]:
        """See `Backend.infer`; each output with the number of the backend that understands it."""
        number = self._idle.get()
        try:
            return [(number, output) for output in self._backends[number].infer(images, queries)]
        finally:
            self._idle.put(number)

    def finish(
        self, output: tuple[int, Any], geometry: Geometry, query: Query, watch: Stopwatch
    ) -> tuple[Instance, ...]:
        """See `Backend.finish`."""
        number, own = output
        return self._backends[number].finish(own, geometry, query, watch)

    def warm_up(self, blank: PreparedImage) -> None:
        """See `Backend.warm_up`."""
        for backend in self._backends:
            backend.warm_up(blank)

    def close(self) -> None:
        """See `Backend.close`."""
        for backend in self._backends:
            backend.close()
