"""Batches of images of one padded size, for idle engines, which wait for a batch to fill only if a setting says so.

    infer ─► bucket of its padded size ─► an engine is idle: up to `max_batch` of the bucket whose first waits longest ─► answers

Everything runs on the event loop's thread, when an image arrives or an engine becomes idle; there is no thread and no polling.
An image whose caller disconnects (the task is cancelled) or whose deadline passes while it waits is not inferred. A failed batch is
retried image by image, so that only the faulty image fails; after the device is lost, nothing is retried.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from solo_server.errors import DeadlineExceeded, DeviceLost, EngineFailure, EngineHung, ServerError

LOG = logging.getLogger("solo_server")
STALLED = 0.5  # share of `engine_timeout_s` after which no request is accepted

Infer = Callable[[Sequence[Any]], Awaitable[Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class BatchRules:
    """max_concurrency: engines, or slots of one; max_batch: images; max_delay_s: how long an idle engine waits for a batch to fill.

    ahead: batches queued for the next idle engine, which then does not wait for the event loop. engine_timeout_s: after so long
    without an answer, an engine counts as hanging.
    """

    max_concurrency: int = 1
    ahead: int = 0
    max_batch: int = 1
    max_delay_s: float = 0.0
    engine_timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Inferred:
    """The output of one image, how long it waited, and how long its batch took."""

    output: Any
    queue_ms: float
    infer_ms: float


@dataclass(slots=True, eq=False)
class _Entry:
    """A waiting image. Times by the monotonic clock."""

    image: Any
    bucket: Hashable
    deadline: float
    since: float
    answer: asyncio.Future[Inferred]
    is_waiting: bool = True

    def fail(self, problem: BaseException) -> None:
        """Set the failure, unless the image has an answer or its caller was cancelled."""
        if not self.answer.done():
            self.answer.set_exception(problem)


@dataclass(slots=True, eq=False)
class _Call:
    """A batch that an engine works on, or is queued for the next idle engine."""

    batch: list[_Entry]
    start: float
    watchdog: asyncio.TimerHandle | None = None


class Batcher:
    """Hands waiting images to idle engines.

    infer: runs one batch in an engine thread; `max_concurrency` calls at a time, further ones queue. on_end: called once, with a
    failure that only a new process can repair: `DeviceLost` or `EngineHung`; all waiting and later images fail with it. on_batch:
    called after each batch, failed ones too, with its number of images and milliseconds.
    """

    def __init__(
        self,
        infer: Infer,
        rules: BatchRules,
        on_end: Callable[[ServerError], None] | None = None,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._infer, self._rules, self._on_end, self._on_batch = infer, rules, on_end, on_batch
        self._buckets: dict[Hashable, deque[_Entry]] = {}
        self._idle = rules.max_concurrency + rules.ahead
        self._batches: set[asyncio.Task[None]] = set()
        self._running: list[_Call] = []
        self._ahead: deque[_Call] = deque()
        self._wake_up: asyncio.TimerHandle | None = None
        self._ended: ServerError | None = None

    @property
    def waiting(self) -> int:
        """How many images wait for an engine."""
        return sum(len(bucket) for bucket in self._buckets.values())

    @property
    def is_stalled(self) -> bool:
        """Whether a batch takes longer than `STALLED` allows."""
        longest_s = monotonic() - min(call.start for call in self._running) if self._running else 0.0
        return longest_s > STALLED * self._rules.engine_timeout_s

    async def infer(self, image: Any, bucket: Hashable = None, deadline: float = float("inf")) -> Inferred:
        """Run the engine on one image; the batcher does not look into it.

        bucket: images of one bucket may share a batch. deadline: by the monotonic clock; after it the image is not inferred.

        Raises:
            DeadlineExceeded: the deadline passed while the image waited.
            EngineFailure: the backend failed on this image; `DeviceLost`: on all images.
            EngineHung: the engine never answered.
        """
        if self._ended is not None:
            raise self._ended
        answer: asyncio.Future[Inferred] = asyncio.get_running_loop().create_future()
        entry = _Entry(image, bucket, deadline, monotonic(), answer)
        self._buckets.setdefault(bucket, deque()).append(entry)
        self._dispatch()
        try:
            return await answer
        finally:
            if entry.is_waiting:
                self._remove(entry)
            if answer.done() and not answer.cancelled():
                answer.exception()  # retrieved, even if the caller was cancelled at the same moment

    def _remove(self, entry: _Entry) -> None:
        """Take out an image whose caller no longer waits."""
        self._buckets[entry.bucket].remove(entry)
        if not self._buckets[entry.bucket]:
            del self._buckets[entry.bucket]

    def _dispatch(self) -> None:
        """Start a batch for every idle engine."""
        while self._idle and (batch := self._next_batch()):
            self._idle -= 1
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    def _next_batch(self) -> list[_Entry]:
        """From the bucket whose first image waits longest; empty if no bucket is ready."""
        while ready := [name for name, bucket in self._buckets.items() if self._is_ready(bucket)]:
            if batch := self._take(min(ready, key=lambda name: self._buckets[name][0].since)):
                return batch
        if self._buckets:
            self._wake_up_when_ready()
        return []

    def _is_ready(self, bucket: deque[_Entry]) -> bool:
        rules = self._rules
        return len(bucket) >= rules.max_batch or monotonic() >= bucket[0].since + rules.max_delay_s

    def _wake_up_when_ready(self) -> None:
        """Only needed with a `max_delay_s`: without it, every bucket is ready."""
        if self._wake_up is not None:
            self._wake_up.cancel()
        first = min(bucket[0].since for bucket in self._buckets.values())
        delay_s = max(0.0, first + self._rules.max_delay_s - monotonic())
        self._wake_up = asyncio.get_running_loop().call_later(delay_s, self._dispatch)

    def _take(self, name: Hashable) -> list[_Entry]:
        """Up to `max_batch` images of a bucket, without those whose deadline has passed."""
        bucket, batch, now = self._buckets[name], list[_Entry](), monotonic()
        while bucket and len(batch) < self._rules.max_batch:
            entry = bucket.popleft()
            entry.is_waiting = False
            if entry.deadline <= now:
                entry.fail(DeadlineExceeded("the deadline passed while the image waited for the engine"))
            elif not entry.answer.done():
                batch.append(entry)
        if not bucket:
            del self._buckets[name]
        return batch

    async def _run(self, batch: list[_Entry]) -> None:
        """Run one batch, then start the next one."""
        try:
            problem = await self._attempt(batch)
            if problem is not None and len(batch) > 1 and self._ended is None:
                LOG.warning("a batch of %d failed and is retried image by image: %s", len(batch), problem)
                await self._attempt_each(batch)
            elif problem is not None:
                _fail(batch, problem)
        finally:
            self._idle += 1
            self._dispatch()

    async def _attempt_each(self, batch: list[_Entry]) -> None:
        for entry in batch:
            if self._ended is not None:
                entry.fail(self._ended)
            elif entry.deadline <= monotonic():
                entry.fail(DeadlineExceeded("the deadline passed while the image waited for the engine"))
            elif not entry.answer.done() and (problem := await self._attempt([entry])) is not None:
                _fail([entry], problem)

    async def _attempt(self, batch: list[_Entry]) -> Exception | None:
        """Run a batch and answer its images; returns the failure, if any."""
        call = _Call(batch, monotonic())
        self._ahead.append(call)
        self._begin_calls()
        try:
            outputs = await self._infer([entry.image for entry in batch])
            infer_ms = (monotonic() - call.start) * 1e3
            for entry, output in zip(batch, outputs, strict=True):
                if not entry.answer.done():
                    entry.answer.set_result(Inferred(output, (call.start - entry.since) * 1e3, infer_ms))
        except DeviceLost as problem:
            self._end(problem)
            return problem
        except Exception as problem:
            return problem
        finally:
            self._end_call(call)
            if self._on_batch is not None:
                self._on_batch(len(batch), (monotonic() - call.start) * 1e3)
        return None

    def _begin_calls(self) -> None:
        """Assign queued calls to idle engines; their time counts from now."""
        while self._ahead and len(self._running) < self._rules.max_concurrency:
            call = self._ahead.popleft()
            call.start = monotonic()
            call.watchdog = asyncio.get_running_loop().call_later(
                self._rules.engine_timeout_s, self._time_out, call.batch
            )
            self._running.append(call)

    def _end_call(self, call: _Call) -> None:
        if call.watchdog is None:
            self._ahead.remove(call)  # failed before an engine took it
        else:
            call.watchdog.cancel()
            self._running.remove(call)
        self._begin_calls()

    def _time_out(self, batch: list[_Entry]) -> None:
        """The watchdog: the engine counts as hanging."""
        problem = EngineHung(self._rules.engine_timeout_s)
        self._end(problem)
        for entry in batch:
            entry.fail(problem)

    def _end(self, problem: ServerError) -> None:
        """Fail all waiting and later images, and report the first such failure."""
        if self._ended is not None:
            return
        self._ended = problem
        buckets, self._buckets = self._buckets, {}
        for entry in (entry for bucket in buckets.values() for entry in bucket):
            entry.is_waiting = False
            entry.fail(problem)
        for entry in (entry for call in self._ahead for entry in call.batch):
            entry.fail(problem)
        if self._on_end is not None:
            self._on_end(problem)


def _fail(batch: list[_Entry], problem: Exception) -> None:
    """Fail all images of a batch. A foreign exception becomes an `EngineFailure`, whose detail shows nothing internal."""
    LOG.error("the engine failed on a batch of %d valid images", len(batch), exc_info=problem)
    if isinstance(problem, ServerError):
        failure: ServerError = problem
    else:
        failure = EngineFailure(str(problem))
        failure.__cause__ = problem
    for entry in batch:
        entry.fail(failure)
