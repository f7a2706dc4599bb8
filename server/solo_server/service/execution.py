"""The two ways in which an image of a model is executed, with one interface.

    StagedExecution   a decode thread ─► batcher ─► an engine thread ─► a finish thread    images of one size share a batch
    RunToCompletion   batcher ─► decode, infer and finish in one engine thread             one hand-over instead of three

`ServedModel` picks one of them when a model is put into service. What one image needs, and what its caller gets, is an `ImageJob`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np

from solo_server.backends.stopwatch import Cancelled
from solo_server.errors import DeviceLost, EngineFailure, ImageDamaged, RequestError
from solo_server.pipeline.pipeline import Body, Decoded, Pipeline
from solo_server.service.batching import Batcher, Inferred
from solo_server.service.worker_threads import WorkerThreads
from solo_server.types import ImageResult, Query, UInt8

T = TypeVar("T")
Render = Callable[[ImageResult, UInt8], T]
"""Makes the answer of one image, in a worker thread, from its result and its pixels (none, unless an overlay is drawn)."""

LOG = logging.getLogger("solo_server")
NO_PIXELS = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """The answer of one image, its number of instances, and the milliseconds of each stage."""

    answer: T
    instances: int
    stages_ms: Mapping[str, float]


class ImageJob(Generic[T]):
    """One accepted image. Its stages run in worker threads; `cancel` is called on the event loop.

    pixels: as its header says, which is what was admitted. for_overlay: `render` draws on the pixels.
    """

    __slots__ = ("_body", "_for_overlay", "_is_cancelled", "_pipeline", "_pixels", "_render", "_start", "query")

    def __init__(
        self, pipeline: Pipeline, body: Body, query: Query, render: Render[T], *, pixels: int, for_overlay: bool
    ) -> None:
        self._pipeline, self._body, self.query, self._render = pipeline, body, query, render
        self._pixels, self._for_overlay = pixels, for_overlay
        self._start, self._is_cancelled = perf_counter(), False

    def cancel(self) -> None:
        """Nobody waits for the answer: a stage that already runs cannot be interrupted, but stops at its next check."""
        self._is_cancelled = True

    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._is_cancelled

    def decode(self) -> Decoded:
        """Keep only the network's input while the image waits, unless an overlay is drawn.

        Raises:
            ImageDamaged: it has more pixels than its header says.
        """
        decoded = self._pipeline.decode(self._body, for_overlay=self._for_overlay)
        height, width = decoded.image.geometry.original_hw
        if height * width > self._pixels:
            raise ImageDamaged("the headers of the image give different sizes")
        return decoded if self._for_overlay else replace(decoded, rgb=NO_PIXELS)

    def finish(self, decoded: Decoded, inferred: Inferred) -> Finished[T]:
        """Post-process the network's output and render the answer."""
        result = self._pipeline.finish(inferred.output, decoded, self.query, inferred.infer_ms, self.is_cancelled)
        return self._rendered(result, decoded.rgb, inferred.queue_ms)

    def run_to_completion(self) -> Finished[T] | RequestError | Cancelled:
        """All stages. Failures of the image are returned, not raised: a raised one would count as a failure of the engine."""
        queue_ms = (perf_counter() - self._start) * 1e3
        try:
            self._check()
            decoded = self.decode()
            self._check()
            result = self._pipeline.segment_decoded(decoded, self.query, self.is_cancelled)
            return self._rendered(result, decoded.rgb, queue_ms)
        except (RequestError, Cancelled) as problem:
            return problem.with_traceback(None)  # a traceback would keep the pixels in memory

    def _check(self) -> None:
        if self._is_cancelled:
            raise Cancelled

    def _rendered(self, result: ImageResult, rgb: UInt8, queue_ms: float) -> Finished[T]:
        stages_ms = {"queue": queue_ms, **result.timings_ms}
        total_ms, start = stages_ms.pop("total") + queue_ms, perf_counter()
        answer = self._render(replace(result, timings_ms={**stages_ms, "total": total_ms}), rgb)
        return Finished(answer, len(result.instances), {**stages_ms, "answer": (perf_counter() - start) * 1e3})


class Execution(Protocol):
    """How the jobs of one model run."""

    @property
    def ahead(self) -> int:
        """`BatchRules.ahead`."""
        ...

    async def run(self, job: ImageJob[T], batcher: Batcher, deadline_at: float) -> Finished[T]:
        """All stages of one image. deadline_at: by the event loop's clock.

        Raises:
            RequestError: the image cannot be answered.
            DeadlineExceeded, EngineHung: see `Batcher.infer`.
            EngineFailure: a stage failed.
        """
        ...

    def infer(self, items: Sequence[Any]) -> Sequence[Any]:
        """Run one batch in an engine thread. items: what `run` hands to the batcher."""
        ...


class StageThreads(WorkerThreads):
    """The threads of one stage, in which a failure is logged and becomes an `EngineFailure`. on_lost: called on `DeviceLost`."""

    def __init__(self, name: str, count: int, on_lost: Callable[[DeviceLost], None]) -> None:
        super().__init__(name, count)
        self._on_lost = on_lost

    async def run_stage(self, work: Callable[[], T]) -> T:
        """As `run`.

        Raises:
            RequestError: as `work` raises it.
            EngineFailure: `work` raised anything else.
        """
        try:
            return await self.run(work)
        except RequestError:
            raise
        except Exception as problem:
            LOG.exception("a stage failed on valid input", exc_info=problem)
            if isinstance(problem, DeviceLost):
                self._on_lost(problem)
            if isinstance(problem, EngineFailure):
                raise
            raise EngineFailure(str(problem)) from problem


class StagedExecution:
    """Each stage in threads of its own; see `Execution`."""

    ahead = 0

    def __init__(self, pipeline: Pipeline, decode: StageThreads, finish: StageThreads) -> None:
        self._pipeline, self._decode, self._finish = pipeline, decode, finish

    async def run(self, job: ImageJob[T], batcher: Batcher, deadline_at: float) -> Finished[T]:
        """See `Execution.run`."""
        held = [await self._decode.run_stage(job.decode)]
        shape = held[0].image.geometry.padded_hw
        inferred = await batcher.infer((held[0].image, job.query), shape, deadline_at)
        # popped, so that the finish thread frees it: hundreds of megabytes where an overlay is drawn on a large image
        return await self._finish.run_stage(lambda: job.finish(held.pop(), inferred))

    def infer(self, items: Sequence[Any]) -> Sequence[Any]:
        """See `Execution.infer`. items: prepared images, each with its query."""
        return self._pipeline.infer([image for image, _ in items], [query for _, query in items])


class RunToCompletion:
    """An image stays in one engine thread from its bytes to its answer; see `Execution`."""

    ahead = 1  # an engine thread finds its next image in the queue, and does not wait for the event loop

    async def run(self, job: ImageJob[T], batcher: Batcher, deadline_at: float) -> Finished[T]:
        """See `Execution.run`."""
        outcome = (await batcher.infer(job.run_to_completion, deadline=deadline_at)).output
        if isinstance(outcome, Exception):
            raise outcome
        return cast(Finished[T], outcome)

    def infer(self, items: Sequence[Any]) -> Sequence[Any]:
        """See `Execution.infer`. items: `ImageJob.run_to_completion` of each image."""
        return [work() for work in items]
