"""Threads that the event loop gives its work to. What happens in one of them never ends the loop.

A hand-over costs a third of what `ThreadPoolExecutor` and `asyncio.wrap_future` take, and a request has three.
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
    """`count` threads named `solo-NAME_0` and so on, begun when first needed. All methods are of the event loop's thread."""

    def __init__(self, name: str, count: int) -> None:
        self._name, self._count = name, count
        self._threads: list[threading.Thread] = []
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._unfinished = 0  # of whatever the callers asked for
        self._has_stopped = False

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Cancelled before a thread has taken it, it does not run.

        Raises:
            RuntimeError: the threads were told to stop.
        """
        if self._has_stopped:
            raise RuntimeError(f"threads {self._name} have stopped")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._unfinished += 1
            is_one_more_needed = self._unfinished > len(self._threads) < self._count
        self._queue.put((future, work))
        if is_one_more_needed:
            self._begin()
        return await future

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, or is to run. May be asked by any thread."""
        return self._unfinished == 0

    def stop(self) -> None:
        """Take no more work, and cancel what no thread has taken; waits for nothing that runs, for it may run for ever."""
        self._has_stopped = True
        while True:
            try:
                entry = self._queue.get_nowait()
            except Empty:
                break
            if entry is not None:
                entry[0].cancel()
                self._finished()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads if self.is_idle else ():
            thread.join()

    def _begin(self) -> None:
        name = f"solo-{self._name}_{len(self._threads)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)  # it must not keep a process from ending
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while (entry := self._queue.get()) is not None:
            self._settle(*entry)
            del entry  # what it holds can be large, and the next may be long in coming

    def _settle(self, future: asyncio.Future[Any], work: Callable[[], Any]) -> None:
        """Run the work in this thread, and tell the event loop's what came of it."""
        tell: Callable[[Any], None] = future.set_exception
        outcome: Any = None
        try:
            if not future.cancelled():
                outcome = work()
                tell = future.set_result
        except BaseException as problem:
            outcome = _contained(problem)
        self._finished()  # first: whoever hears of the outcome may ask whether all is idle
        loop = future.get_loop()
        if not loop.is_closed():  # where it is, nobody waits any more: the process ends
            loop.call_soon_threadsafe(_unless_done, future, tell, outcome)

    def _finished(self) -> None:
        with self._lock:
            self._unfinished -= 1


def _contained(problem: BaseException) -> Exception:
    """`SystemExit` and the like would go through the event loop and end it; `StopIteration` no future takes."""
    if isinstance(problem, Exception) and not isinstance(problem, StopIteration):
        return problem
    failure = EngineFailure(f"{type(problem).__name__} in a thread")
    failure.__cause__ = problem
    return failure


def _unless_done(future: asyncio.Future[Any], tell: Callable[[Any], None], outcome: Any) -> None:
    """Whoever waited may have gone away meanwhile."""
    if not future.done():
        tell(outcome)
