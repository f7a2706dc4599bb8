"""Threads for compiled kernels: pieces of one image's work on all cores. Kernels release the interpreter lock.

With as many images at work as there are cores each is computed by its own thread alone: no thread waits for another's piece.
The pieces are the same, and so is what comes of them to the last bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from solo_server.system.cores import cores

P = TypeVar("P")
R = TypeVar("R")


class Pool:
    """`threads` cores; 0 takes all. Shared by everything that one pipeline computes outside of its runtime."""

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or cores()
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="solo-kernel")
        self._lock, self._at_work = threading.Lock(), 0
        _one_thread_for_each_product()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """One more image, or batch, is computed meanwhile."""
        with self._lock:
            self._at_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1

    @property
    def is_crowded(self) -> bool:
        """Whether every core has an image of its own."""
        return self._at_work >= self.threads

    def map(self, work: Callable[[P], R], pieces: Iterable[P]) -> list[R]:
        """`work` of every piece, in order; a single piece runs in the calling thread. Pieces must not wait for others."""
        listed = list(pieces)
        if len(listed) < 2 or self.is_crowded or self.threads == 1:
            return [work(piece) for piece in listed]
        return list(self._executor.map(work, listed))


_LIMITED = threading.Event()


def _one_thread_for_each_product() -> None:
    """Matrix products run in several of our threads at a time: BLAS threads inside each would fight over the cores.

    Sets numpy's BLAS to one thread, for the whole process; other libraries' (torch's) are left alone.
    """
    if _LIMITED.is_set():
        return
    libraries = [each for each in ThreadpoolController().lib_controllers if each.user_api == "blas"]
    for library in [each for each in libraries if "numpy" in (each.filepath or "")] or libraries:
        library.set_num_threads(1)
    _LIMITED.set()
