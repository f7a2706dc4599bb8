"""Threads for compiled kernels: the work on one image, in pieces, on all cores. Kernels release the interpreter lock.

While as many images as cores are computed, each runs in its own thread only, so that no thread waits for another. The pieces are
the same either way, and so are their results, bit for bit.
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
    """`threads` cores, 0 for all. Shared by everything that one pipeline computes outside its runtime."""

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or cores()
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="solo-kernel")
        self._lock, self._running = threading.Lock(), 0
        _limit_blas_threads()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count one more image, or batch, as running."""
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def is_under_load(self) -> bool:
        """Whether every core has an image of its own."""
        return self._running >= self.threads

    def map(self, work: Callable[[P], R], pieces: Iterable[P]) -> list[R]:
        """`work` of every piece, in order; a single piece runs in the calling thread. Pieces must not wait for each other."""
        listed = list(pieces)
        if len(listed) < 2 or self.is_under_load() or self.threads == 1:
            return [work(piece) for piece in listed]
        return list(self._executor.map(work, listed))


_BLAS_IS_LIMITED = threading.Event()


def _limit_blas_threads() -> None:
    """Set numpy's BLAS to one thread, for the whole process; other libraries' (torch's) keep theirs.

    Several pool threads compute matrix products at the same time: BLAS threads in each would compete for the cores.
    """
    if _BLAS_IS_LIMITED.is_set():
        return
    libraries = [each for each in ThreadpoolController().lib_controllers if each.user_api == "blas"]
    for library in [each for each in libraries if "numpy" in (each.filepath or "")] or libraries:
        library.set_num_threads(1)
    _BLAS_IS_LIMITED.set()
