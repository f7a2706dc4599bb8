"""Runs jobs in several threads and yields their results in the order of the jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")

AHEAD = 4  # jobs queued per thread before the oldest is done: one slow image does not leave threads idle
GRACE_S = 2.0  # for running jobs when the caller stops early, so that no file is left half-written


def in_order(
    work: Callable[[J], R], jobs: Iterable[J], max_concurrency: int, *, ahead: int = AHEAD
) -> Generator[R, None, None]:
    """Yield `work(job)` for every job, in the jobs' order, run in `max_concurrency` threads.

    An exception of `work` is raised in place of that job's result. At most `ahead` results per thread are kept. With a
    concurrency of 1 the work runs in the calling thread.
    """
    if max_concurrency == 1:
        yield from map(work, jobs)
        return
    todo: SimpleQueue[tuple[J, Future[R]] | None] = SimpleQueue()
    threads = [Thread(target=_serve, args=(work, todo), daemon=True) for _ in range(max_concurrency)]
    in_flight: deque[Future[R]] = deque()
    try:
        for thread in threads:
            thread.start()
        for job in jobs:
            future: Future[R] = Future()
            in_flight.append(future)
            todo.put((job, future))
            if len(in_flight) == ahead * max_concurrency:
                yield in_flight.popleft().result()
        while in_flight:
            yield in_flight.popleft().result()
    finally:
        _end(threads, todo, in_flight)


def _serve(work: Callable[[J], R], todo: SimpleQueue[tuple[J, Future[R]] | None]) -> None:
    while (entry := todo.get()) is not None:
        job, future = entry
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(work(job))
        except BaseException as error:  # the caller's thread raises it
            future.set_exception(error)
        del entry, future  # a result can be large, and it may be long until the next job


def _end(threads: list[Thread], todo: SimpleQueue[tuple[J, Future[R]] | None], in_flight: Iterable[Future[R]]) -> None:
    """Cancel what has not begun and wait briefly for the rest: a request can take minutes, and the threads are daemons."""
    for future in in_flight:
        future.cancel()
    for _ in threads:
        todo.put(None)
    end = monotonic() + GRACE_S
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, end - monotonic()))
