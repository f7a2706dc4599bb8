"""Several jobs at a time in threads, their results in the order of the jobs."""

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

AHEAD = 4  # jobs begun for each thread before the oldest is done: an image that takes long does not keep threads idle
GRACE_S = 2.0  # for what still runs when the caller goes away, so that no file is left half-written


def in_order(work: Callable[[J], R], jobs: Iterable[J], max_concurrency: int) -> Generator[R, None, None]:
    """`work` of every job, in the jobs' order, in `max_concurrency` threads; raises what `work` raised at that job's place.

    At most `AHEAD` results for each thread are held. One at a time runs in the calling thread.
    """
    if max_concurrency == 1:
        yield from map(work, jobs)
        return
    todo: SimpleQueue[tuple[J, Future[R]] | None] = SimpleQueue()
    threads = [Thread(target=_serve, args=(work, todo), daemon=True) for _ in range(max_concurrency)]
    under_way: deque[Future[R]] = deque()
    try:
        for thread in threads:
            thread.start()
        for job in jobs:
            future: Future[R] = Future()
            under_way.append(future)
            todo.put((job, future))
            if len(under_way) == AHEAD * max_concurrency:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        _end(threads, todo, under_way)


def _serve(work: Callable[[J], R], todo: SimpleQueue[tuple[J, Future[R]] | None]) -> None:
    while (entry := todo.get()) is not None:
        job, future = entry
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(work(job))
        except BaseException as error:  # the caller's thread raises it
            future.set_exception(error)
        del entry, future  # a result can be large, and the next job may be long in coming


def _end(threads: list[Thread], todo: SimpleQueue[tuple[J, Future[R]] | None], under_way: Iterable[Future[R]]) -> None:
    """Begin nothing more and wait a little for what runs: a request can take minutes, and the threads are daemons."""
    for future in under_way:
        future.cancel()
    for _ in threads:
        todo.put(None)
    end = monotonic() + GRACE_S
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, end - monotonic()))
