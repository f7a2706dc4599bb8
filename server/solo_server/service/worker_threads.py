"""Threads that work for the event loop. Nothing that happens in one of them can end the loop.

A hand-over costs a third of what it costs with `ThreadPoolExecutor` and `asyncio.wrap_future`, and a request has up to three.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from solo_server.errors import EngineFailure

T = TypeVar("T")
_Work = tuple[asyncio.Future[Any], Callable[[], Any]]


class WorkerThreads:
    """`count` threads named `solo-NAME_0` and so on, started when first needed. All methods run on the event loop's thread."""

    def __init__(self, name: str, count: int) -> None:
        self._name, self._count = name, count
        self._threads: list[threading.Thread] = []
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._unfinished = 0  # calls of `run`
        self._has_stopped = False

    async def run(self, work: Callable[[], T]) -> T:
        """Return or raise what `work` does. If cancelled before a thread has taken it, it does not run.

        Raises:
            RuntimeError: `stop` was called.
        """
        if self._has_stopped:
            raise RuntimeError(f"threads {self._name} have stopped")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._unfinished += 1
            needs_thread = self._unfinished > len(self._threads) < self._count
        self._queue.put((future, work))
        if needs_thread:
            self._start_thread()
        return await future

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs or waits. May be called from any thread."""
        return self._unfinished == 0

    def stop(self) -> None:
        """Take no more work and cancel what no thread has taken. Running work is not waited for, since it may never end."""
        self._has_stopped = True
        while True:
            try:
                entry = self._queue.get_nowait()
            except Empty:
                break
            if entry is not None:
                entry[0].cancel()
                self._count_finished()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads if self.is_idle else ():
            thread.join()

    def _start_thread(self) -> None:
        name = f"solo-{self._name}_{len(self._threads)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)  # does not keep the process from ending
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while (entry := self._queue.get()) is not None:
            self._settle(*entry)
            del entry  # it can be large, and the next one may be a long time away

    def _settle(self, future: asyncio.Future[Any], work: Callable[[], Any]) -> None:
        """Run the work in this thread and hand its outcome to the event loop's."""
        set_outcome: Callable[[Any], None] = future.set_exception
        outcome: Any = None
        try:
            if not future.cancelled():
                outcome = work()
                set_outcome = future.set_result
        except BaseException as problem:
            outcome = _as_exception(problem)
        self._count_finished()  # first: whoever gets the outcome may call is_idle
        loop = future.get_loop()
        if not loop.is_closed():  # if it is, the process is ending and nobody waits
            loop.call_soon_threadsafe(_unless_done, future, set_outcome, outcome)

    def _count_finished(self) -> None:
        with self._lock:
            self._unfinished -= 1


def _as_exception(problem: BaseException) -> Exception:
    """An `EngineFailure` for `SystemExit` and the like, which end event loops, and for `StopIteration`, which futures refuse."""
    if isinstance(problem, Exception) and not isinstance(problem, StopIteration):
        return problem
    failure = EngineFailure(f"{type(problem).__name__} in a thread")
    failure.__cause__ = problem
    return failure


def _unless_done(future: asyncio.Future[Any], set_outcome: Callable[[Any], None], outcome: Any) -> None:
    """The caller may have been cancelled meanwhile."""
    if not future.done():
        set_outcome(outcome)
