"""Memory that the allocator keeps although nobody uses it any more."""

from __future__ import annotations

import ctypes
import gc


def return_unused() -> None:
    """Give free memory back to the system, where the C library can (glibc): loading a network leaves as much as its weights."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)
