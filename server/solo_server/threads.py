"""Threads that the event loop gives its work to. What happens in one of them never ends the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from solo_server.errors import EngineFailure

T = TypeVar("T")


class Threads:
    """`count` threads named `solo-NAME_0` and so on, begun when first needed."""

    def __init__(self, name: str, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=f"solo-{name}")
        self._unfinished: set[Future[Any]] = set()  # of whatever the callers asked for

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Cancelled before a thread has taken it, it does not run."""
        future = self._pool.submit(_contained, work)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return await asyncio.wrap_future(future)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, or is to run."""
        return not self._unfinished

    def stop(self) -> None:
        """Take no more work; waits for nothing that runs, for it may run for ever."""
        self._pool.shutdown(wait=self.is_idle, cancel_futures=True)


def _contained(work: Callable[[], T]) -> T:
    try:
        return work()
    except Exception:
        raise
    except BaseException as problem:  # SystemExit and the like would go through the event loop and end it
        raise EngineFailure(f"{type(problem).__name__} in a thread") from problem
