"""Returns memory to the system that the allocator keeps after it was freed. Works with glibc; elsewhere it does nothing."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

_M_ARENA_MAX = -8  # of malloc.h


def share_one_heap() -> None:
    """Use one heap for all threads instead of one per thread. Call it before threads start.

    Each heap would keep the free memory of its largest images, between smaller objects that still live: after images of
    64 million pixels on every thread, several hundred megabytes. `MALLOC_ARENA_MAX` in the environment does the same.
    """
    mallopt = _of_libc("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def release_unused_memory() -> None:
    """Return free memory to the system: loading a network leaves as much as its weights take."""
    gc.collect()
    malloc_trim = _of_libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_libc(name: str) -> Any:
    """A function of the C library that runs this process, or `None`."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
