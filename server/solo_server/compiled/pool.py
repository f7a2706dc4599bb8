"""Threads for compiled kernels: pieces of one picture's work on all cores. Kernels release the interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

P = TypeVar("P")
R = TypeVar("R")


class Pool:
    """`threads` cores; 0 takes all. Shared by everything that one pipeline computes outside of its runtime."""

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or os.cpu_count() or 1
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="solo-kernel")

    def map(self, work: Callable[[P], R], pieces: Iterable[P]) -> list[R]:
        """`work` of every piece, in order; a single piece runs in the calling thread. Pieces must not wait for others."""
        listed = list(pieces)
        if len(listed) < 2 or self.threads == 1:
            return [work(piece) for piece in listed]
        return list(self._executor.map(work, listed))
