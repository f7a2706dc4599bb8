"""From an HTTP request's bytes to its answer without blocking the event loop, for many callers at a time.

    admit (a model, a place, a deadline) ─► header ─► decode ─► batcher ─► finish and render ─► answer
                                 at a peek_size  a core each   engine's threads  a core each
                                               └──── or all three in one of the engine's threads ────┘

Decoding, engines, post-processing and the rare header that takes reading have threads of their own, so that none waits behind
another's queue (all of them release the interpreter lock). Where an engine computes on the cores, and on all of them
(`registry.run_to_completion`), an image stays in one thread from its bytes to its answer. Each model of the registry has
its own engine and batcher; bounds, and all other threads, are common. What is over the bounds is refused at once instead of waiting
for ever, before its body is read. Models are loaded and warmed up in a thread too, while the server already answers that it is not
ready. What only a new process can mend, a lost GPU or a hanging engine, is told to `on_end`, once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from time import perf_counter
from types import TracebackType
from typing import Generic, TypeVar, cast

import numpy as np

from solo_server.backends.stopwatch import NotWanted, Stopwatch
from solo_server.errors import (
    DeadlineExceeded,
    DeviceLost,
    EngineFailure,
    EngineHung,
    ImageDamaged,
    NotReady,
    RequestError,
    ServerError,
)
from solo_server.observability.observer import NO_STAGES, Observer, Unobserved
from solo_server.pipeline.pipeline import Body, Decoded, Pipeline
from solo_server.service.admission import Admission
from solo_server.service.batching import Inferred
from solo_server.service.deadline import Deadline
from solo_server.service.model_registry import EXPECTED, Registry, ServedModel
from solo_server.service.model_repository import ModelRepository
from solo_server.service.worker_threads import Threads
from solo_server.settings import Settings
from solo_server.system.cores import cores
from solo_server.types import ImageResult, Query, UInt8

T = TypeVar("T")
Render = Callable[[ImageResult, UInt8], T]
"""Makes the answer of one image, in a worker: of its result and, where that was asked for, the whole image."""

LOG = logging.getLogger("solo_server")
UNANSWERED = ("gone", DeadlineExceeded.code, NotReady.code)  # how images end that were given up
NO_PIXELS = np.empty((0, 0, 3), np.uint8)
_UNREADY = {
    "warming": ("the models are being loaded and warmed up", 5),
    "draining": ("the server is going down", 1),
    "stalled": ("the engine has not answered for a long time", 10),
    "lost": ("the GPU is lost; the server starts anew", 10),
}


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """An image's answer; how many instances it tells of, and how long its stages took."""

    answer: T
    instances: int
    stages_ms: Mapping[str, float]


class Service:
    """Pipelines for many callers. repository: tells which; on_end: see above."""

    def __init__(
        self,
        repository: ModelRepository,
        settings: Settings | None = None,
        on_end: Callable[[ServerError], None] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.settings, self.observer = settings or Settings(), observer or Unobserved()
        self._on_end = on_end
        self.admission = Admission(self.settings.max_waiting, self.settings.max_waiting_pixels, self.observer)
        self._loader, self._header = Threads("loader", 1), Threads("header", 1)
        self._decode, self._finish = Threads("decode", cores()), Threads("finish", cores())
        self.models = Registry(
            repository,
            self._loader,
            lambda source, pipeline: ServedModel(source, pipeline, self.settings, self._end, self.observer),
            self.settings.default_model,
        )
        self._unready: str | None = "warming"
        self._has_ended = False
        self._drain_end = float("inf")
        self.accepted: set[Admitted] = set()
        self._reloading: set[asyncio.Task[None]] = set()

    @property
    def unready(self) -> str | None:
        """Why no request is taken: warming, draining, stalled or lost; `None` where they are."""
        if self._unready is None and any(model.batcher.is_stalled for model in self.models.in_service()):
            return "stalled"
        return self._unready

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self.unready is None

    @property
    def is_idle(self) -> bool:
        """Whether no thread is at work."""
        return all(threads.is_idle for threads in self._threads()) and self.models.is_idle

    def not_ready(self) -> NotReady:
        """The problem of whoever comes while nothing is taken."""
        return _not_ready(self.unready or "warming")

    async def start(self) -> None:
        """Load all models and warm them up, so that the first caller does not wait. Raises what `Registry.load` raises."""
        begun = perf_counter()
        await self.models.load(is_start=True)
        if self._unready == "warming":
            self._unready = None
            LOG.info("ready after %.1f s", perf_counter() - begun)

    def reload(self) -> None:
        """Look for models again, in the background; the log tells what came of it."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    def drain(self) -> None:
        """Take nothing more; what was accepted has `drain_seconds` to be answered. Again, it changes nothing."""
        if self._drain_end < float("inf"):
            return
        self._unready = self._unready if self._has_ended else "draining"
        self._drain_end = asyncio.get_running_loop().time() + self.settings.drain_seconds
        for admitted in self.accepted:
            admitted.end_before(self._drain_end)

    def stop(self) -> None:
        """Refuse further work. Threads end when their work has; where it has not, a backend is left to the process's end."""
        self._unready = self._unready or "draining"
        self.models.stop()
        for threads in self._threads():
            threads.stop()

    def admit(self, timeout_ms: int | None = None, name: str | None = None, version: str | None = None) -> Admitted:
        """A model, a place and a deadline for one request, to be entered: everything that it does happens within.

        Cheap: to be asked first of all. name, version: of the model; without them the default, the highest version.

        Raises:
            NotReady, UnknownModel: it is not taken, or there is no such model. For what entering and leaving raise see there.
        """
        try:
            if self.unready is not None:
                raise self.not_ready()
            model = self.models.find(name, version)
        except NotReady as problem:
            self.observer.refused(problem.code, problem.reason)
            raise
        return Admitted(self, model, (timeout_ms or self.settings.request_timeout_ms) / 1e3)

    async def segment(self, body: Body, query: Query) -> ImageResult:
        """One image as a request of its own; raises what `admit` and `Admitted.answer` raise."""
        with self.admit() as admitted:
            return await admitted.answer(body, query, lambda result, _: result)

    async def in_worker(self, work: Callable[[], T]) -> T:
        """What takes too long for the event loop."""
        return await self._in(self._finish, work)

    async def free(self, held: list[object]) -> None:
        """Empty a list in a worker: what was in it can be so large that giving its memory back takes milliseconds."""
        with suppress(RuntimeError):  # the threads have stopped: so does the process
            await self._finish.run(held.clear)

    async def measure(self, model: ServedModel, body: Body) -> int:
        """Pixels of an image, from its header: at a peek_size, or where that takes more, in a thread."""
        pixels = model.pipeline.peek_size(body)
        return pixels if pixels is not None else await self._in(self._header, lambda: model.pipeline.pixels(body))

    async def run(
        self,
        model: ServedModel,
        body: Body,
        query: Query,
        render: Render[T],
        deadline: float,
        *,
        pixels: int,
        whole: bool,
    ) -> Finished[T]:
        """All stages of one image that has its place. pixels: those that it was admitted with."""
        pipeline, come = model.pipeline, perf_counter()
        is_wanted = True  # a thread that has begun is not cancelled, but finds that nobody waits

        def decode() -> Decoded:
            return _decoded(pipeline, body, pixels, whole=whole)

        def rendered(result: ImageResult, rgb: UInt8, queue_ms: float) -> Finished[T]:
            stages_ms = {"queue": queue_ms, **result.timings_ms}
            total_ms, start = stages_ms.pop("total") + queue_ms, perf_counter()
            answer = render(replace(result, timings_ms={**stages_ms, "total": total_ms}), rgb)
            return Finished(answer, len(result.instances), {**stages_ms, "answer": (perf_counter() - start) * 1e3})

        def finish(decoded: Decoded, inferred: Inferred) -> Finished[T]:
            result = pipeline.finish(inferred.output, decoded, query, inferred.infer_ms, lambda: is_wanted)
            return rendered(result, decoded.rgb, inferred.queue_ms)

        def run_to_completion() -> Finished[T] | RequestError | NotWanted:
            watch, queue_ms = Stopwatch(lambda: is_wanted), (perf_counter() - come) * 1e3
            try:
                watch.check()
                decoded = decode()
                watch.check()
                return rendered(pipeline.segment_decoded(decoded, query, lambda: is_wanted), decoded.rgb, queue_ms)
            except (RequestError, NotWanted) as problem:  # the image's, not the engine's
                return problem.with_traceback(None)  # which would keep the pixels

        try:
            if model.is_in_one_go:
                told = (await model.batcher.infer(run_to_completion, deadline=deadline)).output
                if isinstance(told, Exception):
                    raise told
                return cast(Finished[T], told)
            held = [await self._in(self._decode, decode)]
            shape = held[0].image.geometry.padded_hw
            inferred = await model.batcher.infer((held[0].image, query), shape, deadline)
            # popped to be freed there: hundreds of megabytes where a large image is drawn on
            return await self._in(self._finish, lambda: finish(held.pop(), inferred))
        finally:
            is_wanted = False

    async def _reload(self) -> None:
        try:
            await self.models.load()
        except EXPECTED as problem:
            LOG.error("models: what was served before still is: %s", problem)
        except Exception as problem:
            LOG.exception("models: what was served before still is", exc_info=problem)
        names = sorted(f"{model.name} {model.version}" for model in self.models.in_service())
        LOG.info("models: looked at again; in service: %s", ", ".join(names) or "none")

    async def _in(self, threads: Threads, work: Callable[[], T]) -> T:
        try:
            return await threads.run(work)
        except RequestError:
            raise
        except Exception as problem:
            LOG.exception("a stage failed on input that should have been fine", exc_info=problem)
            if isinstance(problem, DeviceLost):
                self._end(problem)
            if isinstance(problem, EngineFailure):
                raise
            raise EngineFailure(str(problem)) from problem

    def _end(self, problem: ServerError) -> None:
        """Not ready for anything any more; who is to end the process hears of it the first time."""
        if self._has_ended:
            return
        self._has_ended, self._unready = True, "stalled" if isinstance(problem, EngineHung) else "lost"
        if self._on_end is not None:
            self._on_end(problem)

    def _threads(self) -> list[Threads]:
        return [self._loader, self._header, self._decode, self._finish]


class Admitted:
    """A request that was accepted: its model, one place, more for further images, and a deadline."""

    def __init__(self, service: Service, model: ServedModel, seconds: float) -> None:
        self._service, self.model = service, model
        self._begun, self._seconds = asyncio.get_running_loop().time(), seconds
        self._deadline = self._begun + seconds
        self._alarm = Deadline(self._deadline)
        self._has_place = True

    def __enter__(self) -> Admitted:
        """Take the place.

        Raises:
            Overloaded: there is none.
        """
        self._service.admission.occupy(self._seconds)
        self._service.accepted.add(self)
        self.model.use()
        self._alarm.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave it.

        Raises:
            DeadlineExceeded, NotReady: the time was over, that of the request or of a server that goes down.
        """
        self.model.leave()
        self._service.accepted.discard(self)
        self._service.admission.leave(1, 0)
        try:
            self._alarm.__exit__(kind, problem, trace)
        except TimeoutError:
            raise self.time_is_over() from problem

    async def answer(self, body: Body, query: Query, render: Render[T], *, whole: bool = False) -> T:
        """What `render` makes of one image. whole: render draws on the image.

        Raises:
            RequestError: it cannot be answered; see `solo_server.errors`.
            Overloaded: no room for it.
            EngineFailure: a stage failed.
        """
        service, loop, start = self._service, asyncio.get_running_loop(), perf_counter()
        is_first, self._has_place = self._has_place, False
        if not is_first:
            service.admission.occupy(self._deadline - loop.time())
        pixels, outcome, told = 0, "gone", (0, NO_STAGES)
        try:
            measured = await service.measure(self.model, body)
            service.admission.occupy_pixels(measured)
            pixels = measured
            run = service.run(self.model, body, query, render, self._deadline, pixels=pixels, whole=whole)
            finished = await run
            if loop.time() > self._deadline:
                raise self.time_is_over()
            outcome, told = "ok", (finished.instances, finished.stages_ms)
            return finished.answer
        except ServerError as problem:
            outcome = problem.code
            raise
        finally:
            if outcome == "gone" and self._alarm.has_rung:
                outcome = self.time_is_over().code
            if outcome not in UNANSWERED:
                service.admission.answered()
            service.admission.leave(0 if is_first else 1, pixels)
            service.observer.answered(self.model.name, outcome, (perf_counter() - start) * 1e3, *told)

    def answer_within(self, seconds: float) -> None:
        """The caller's body asks for an earlier deadline, counted from the request's headers; a later one changes nothing."""
        self._deadline = min(self._deadline, self._begun + seconds)
        if not self._alarm.has_rung:
            self._alarm.reschedule(min(self._alarm.when, self._deadline))

    def end_before(self, drain_end: float) -> None:
        """The server goes down: an earlier deadline, perhaps."""
        if not self._alarm.has_rung:
            self._alarm.reschedule(min(self._deadline, drain_end))

    def time_is_over(self) -> ServerError:
        """The problem of a request whose alarm has gone off."""
        if self._alarm.when < self._deadline:
            return _not_ready("draining")
        return DeadlineExceeded("the answer was not there in time")


def _decoded(pipeline: Pipeline, body: Body, pixels: int, *, whole: bool) -> Decoded:
    """All that waits from now on is the network's input, unless the image is to be drawn on.

    pixels: what its header told.

    Raises:
        ImageDamaged: it has more of them.
    """
    decoded = pipeline.decode(body, whole=whole)
    height, width = decoded.image.geometry.original_hw
    if height * width > pixels:
        raise ImageDamaged("the header tells more than one size")
    return decoded if whole else replace(decoded, rgb=NO_PIXELS)


def _not_ready(reason: str) -> NotReady:
    detail, retry_after_s = _UNREADY[reason]
    return NotReady(detail, reason, retry_after_s)
