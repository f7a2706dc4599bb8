"""From the bytes of an image to its answer, for many callers at a time, without blocking the event loop.

    admit (model, limits, deadline) ─► header ─► decode ─► batcher ─► finish and render ─► answer
                               on the event loop  └──── `execution`: in stages, or in one thread ────┘

Decoding, engines, finishing and the rare header that takes longer to read have threads of their own, so that none waits in the
queue of another; all of them release the interpreter lock. Each model has its own engine threads and batcher; limits and all other
threads are shared. A request over the limits is refused at once, before its body is read. Models are loaded and warmed up in a
thread, while the server already answers that it is not ready. A failure that only a new process can repair (a lost GPU, a hanging
engine) is reported to `on_end`, once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from types import TracebackType
from typing import TypeVar

from solo_server.errors import DeadlineExceeded, EngineHung, NotReady, ServerError
from solo_server.observability.observer import NO_STAGES, Observer, Unobserved
from solo_server.pipeline.pipeline import Body
from solo_server.service.admission import Admission
from solo_server.service.deadline import Deadline
from solo_server.service.execution import ImageJob, Render, StageThreads
from solo_server.service.model_registry import EXPECTED, ModelRegistry
from solo_server.service.model_repository import ModelRepository
from solo_server.service.served_model import ServedModel, Shared
from solo_server.service.worker_threads import WorkerThreads
from solo_server.settings import Settings
from solo_server.system.cores import cores
from solo_server.types import ImageResult, Query

T = TypeVar("T")

LOG = logging.getLogger("solo_server")
UNANSWERED = (
    "gone",
    DeadlineExceeded.code,
    NotReady.code,
)  # outcomes of abandoned images, which do not count for the throughput
_UNREADY = {
    "warming": ("the models are being loaded and warmed up", 5),
    "draining": ("the server is shutting down", 1),
    "stalled": ("the engine has not answered for a long time", 10),
    "lost": ("the GPU is lost; the server restarts", 10),
}


class Service:
    """Serves the models of a repository to many callers. on_end: see above."""

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
        self._loader, self._header = WorkerThreads("loader", 1), StageThreads("header", 1, self._end)
        self._decode, self._finish = (StageThreads(name, cores(), self._end) for name in ("decode", "finish"))
        shared = Shared(self.settings, self.observer, self._decode, self._finish, self._end)
        self.models = ModelRegistry(
            repository,
            self._loader,
            lambda source, pipeline: ServedModel(source, pipeline, shared),
            self.settings.default_model,
        )
        self._unready: str | None = "warming"
        self._has_ended = False
        self._drain_end = float("inf")
        self.accepted: set[AdmittedRequest] = set()
        self._reloading: set[asyncio.Task[None]] = set()

    @property
    def unready(self) -> str | None:
        """Why no request is accepted: warming, draining, stalled or lost; `None` if requests are accepted."""
        if self._unready is None and any(model.batcher.is_stalled for model in self.models.in_service()):
            return "stalled"
        return self._unready

    @property
    def is_ready(self) -> bool:
        """Whether requests are accepted."""
        return self.unready is None

    @property
    def is_idle(self) -> bool:
        """Whether no thread is busy."""
        return all(threads.is_idle for threads in self._threads()) and self.models.is_idle

    def not_ready(self) -> NotReady:
        """The error of a request that is not accepted now."""
        return _not_ready(self.unready or "warming")

    async def start(self) -> None:
        """Load all models and warm them up, so that the first caller does not wait. Raises what `ModelRegistry.load` raises."""
        start = perf_counter()
        await self.models.load(is_start=True)
        if self._unready == "warming":
            self._unready = None
            LOG.info("ready after %.1f s", perf_counter() - start)

    def reload(self) -> None:
        """Read the repository again, in the background; the result is logged."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    def drain(self) -> None:
        """Accept no more requests; accepted ones have `drain_seconds` to finish. A second call changes nothing."""
        if self._drain_end < float("inf"):
            return
        self._unready = self._unready if self._has_ended else "draining"
        self._drain_end = asyncio.get_running_loop().time() + self.settings.drain_seconds
        for admitted in self.accepted:
            admitted.end_before(self._drain_end)

    def stop(self) -> None:
        """Stop all threads. One that is still busy is not waited for: its backend stays open until the process ends."""
        self._unready = self._unready or "draining"
        self.models.stop()
        for threads in self._threads():
            threads.stop()

    def admit(
        self, timeout_ms: int | None = None, name: str | None = None, version: str | None = None
    ) -> AdmittedRequest:
        """Admit one request: a context manager in which everything happens that the request needs.

        Cheap: call it before anything else. name, version: of the model; if not given, the default model and its highest version.

        Raises:
            NotReady, UnknownModel: no request is accepted now, or there is no such model. For entering and leaving see there.
        """
        try:
            if self.unready is not None:
                raise self.not_ready()
            model = self.models.find(name, version)
        except NotReady as problem:
            self.observer.refused(problem.code, problem.reason)
            raise
        return AdmittedRequest(self, model, (timeout_ms or self.settings.request_timeout_ms) / 1e3)

    async def segment(self, body: Body, query: Query) -> ImageResult:
        """Answer one image as a request of its own; raises what `admit` and `AdmittedRequest.answer` raise."""
        with self.admit() as admitted:
            return await admitted.answer(body, query, lambda result, _: result)

    async def in_worker(self, work: Callable[[], T]) -> T:
        """Run in a thread what takes too long for the event loop."""
        return await self._finish.run_stage(work)

    async def free(self, objects: list[object]) -> None:
        """Empty a list in a thread: its content can be so large that freeing its memory takes milliseconds."""
        with suppress(RuntimeError):  # the threads have stopped, and the process is about to
            await self._finish.run(objects.clear)

    async def count_pixels(self, model: ServedModel, body: Body) -> int:
        """Pixels of an image, from its header: on the event loop, or in a thread if its header takes longer to read."""
        pixels = model.pipeline.peek_size(body)
        return pixels if pixels is not None else await self._header.run_stage(lambda: model.pipeline.pixels(body))

    async def _reload(self) -> None:
        try:
            await self.models.load()
        except EXPECTED as problem:
            LOG.error("models: the models served before stay in service: %s", problem)
        except Exception as problem:
            LOG.exception("models: the models served before stay in service", exc_info=problem)
        names = sorted(f"{model.name} {model.version}" for model in self.models.in_service())
        LOG.info("models: reloaded; in service: %s", ", ".join(names) or "none")

    def _end(self, problem: ServerError) -> None:
        """Accept nothing from now on, and report the first such failure."""
        if self._has_ended:
            return
        self._has_ended, self._unready = True, "stalled" if isinstance(problem, EngineHung) else "lost"
        if self._on_end is not None:
            self._on_end(problem)

    def _threads(self) -> list[WorkerThreads]:
        return [self._loader, self._header, self._decode, self._finish]


class AdmittedRequest:
    """A request that was accepted: its model, its deadline, and the images that `Admission` counts for it."""

    def __init__(self, service: Service, model: ServedModel, seconds: float) -> None:
        self._service, self.model = service, model
        self._start, self._seconds = asyncio.get_running_loop().time(), seconds
        self._deadline_at = self._start + seconds
        self._deadline = Deadline(self._deadline_at)  # earlier than `_deadline_at` while the server shuts down
        self._has_reserved = True  # entering reserves for the first image; each further one reserves for itself

    def __enter__(self) -> AdmittedRequest:
        """Reserve for one image.

        Raises:
            Overloaded: it is over a limit.
        """
        self._service.admission.reserve(self._seconds)
        self._service.accepted.add(self)
        self.model.use()
        self._deadline.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release what `__enter__` reserved.

        Raises:
            DeadlineExceeded, NotReady: the deadline passed, that of the request or of a server that shuts down.
        """
        self.model.leave()
        self._service.accepted.discard(self)
        self._service.admission.release(1, 0)
        try:
            self._deadline.__exit__(kind, problem, trace)
        except TimeoutError:
            raise self._deadline_error() from problem

    async def answer(self, body: Body, query: Query, render: Render[T], *, for_overlay: bool = False) -> T:
        """Return what `render` makes of one image. for_overlay: `render` draws on the pixels.

        Raises:
            RequestError: the image cannot be answered; see `solo_server.errors`.
            Overloaded: the image is over a limit.
            EngineFailure: a stage failed.
        """
        service, loop, start = self._service, asyncio.get_running_loop(), perf_counter()
        is_first, self._has_reserved = self._has_reserved, False
        if not is_first:
            service.admission.reserve(self._deadline_at - loop.time())
        pixels, outcome, found = 0, "gone", (0, NO_STAGES)
        try:
            counted = await service.count_pixels(self.model, body)
            service.admission.reserve_pixels(counted)
            pixels = counted
            job = ImageJob(self.model.pipeline, body, query, render, pixels=pixels, for_overlay=for_overlay)
            try:
                finished = await self.model.execution.run(job, self.model.batcher, self._deadline_at)
            finally:
                job.cancel()
            if loop.time() > self._deadline_at:
                raise self._deadline_error()
            outcome, found = "ok", (finished.instances, finished.stages_ms)
            return finished.answer
        except ServerError as problem:
            outcome = problem.code
            raise
        finally:
            if outcome == "gone" and self._deadline.has_passed:
                outcome = self._deadline_error().code
            if outcome not in UNANSWERED:
                service.admission.answered()
            service.admission.release(0 if is_first else 1, pixels)
            service.observer.answered(self.model.name, outcome, (perf_counter() - start) * 1e3, *found)

    def answer_within(self, seconds: float) -> None:
        """Move the deadline forward, as the request's body asks; counted from its headers. A later one changes nothing."""
        self._deadline_at = min(self._deadline_at, self._start + seconds)
        if not self._deadline.has_passed:
            self._deadline.reschedule(min(self._deadline.when, self._deadline_at))

    def end_before(self, drain_end: float) -> None:
        """Move the deadline forward, if the server will have shut down before it."""
        if not self._deadline.has_passed:
            self._deadline.reschedule(min(self._deadline_at, drain_end))

    def _deadline_error(self) -> ServerError:
        if self._deadline.when < self._deadline_at:
            return _not_ready("draining")
        return DeadlineExceeded("the answer was not ready before the deadline")


def _not_ready(reason: str) -> NotReady:
    detail, retry_after_s = _UNREADY[reason]
    return NotReady(detail, reason, retry_after_s)
