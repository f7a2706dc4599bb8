"""Memory of the fake device: host memory, so that kernels run on it, with every block tracked, guarded and poisoned.

Under the sanitizers blocks have exactly the requested size and are freed: AddressSanitizer detects each wrong access. Otherwise
blocks lie between guards that are checked when they are freed, and freed blocks stay poisoned until the device is closed.
"""

from __future__ import annotations

import bisect
import ctypes
import os

import numpy as np
from numpy.typing import NDArray
from solo_server.types import UInt8
from support.gpu.cuda_rules import DoubleFree, OutOfBounds, UseAfterFree, WrittenAfterFree

ALIGNMENT, GUARD_BYTES = 256, 256
UNINITIALISED, FREED, GUARD, UNDELIVERED = 0xCD, 0xDB, 0xFA, 0xA7

_libc = ctypes.CDLL(None)
_libc.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]
_libc.free.restype = None


class Block:
    """One allocation. `bytes`: its content."""

    def __init__(self, size_bytes: int, name: str, fill: int) -> None:
        self.name, self.size_bytes, self.freed = name, size_bytes, False
        self._watched = os.environ.get("SOLO_SANITIZE", "") not in ("", "0")
        self._guard_bytes = 0 if self._watched else GUARD_BYTES
        place = ctypes.c_void_p()
        if _libc.posix_memalign(place, ALIGNMENT, max(size_bytes, 1) + 2 * self._guard_bytes):
            raise MemoryError(f"{name}: {size_bytes} bytes")
        self._place = place.value or 0
        self.address = self._place + self._guard_bytes
        self._fill(self._place, self._guard_bytes, GUARD)
        self._fill(self.address + size_bytes, self._guard_bytes, GUARD)
        self.bytes[:] = fill

    @property
    def bytes(self) -> UInt8:
        """`(size_bytes,) uint8`."""
        return _bytes_at(self.address, self.size_bytes)

    def free(self) -> None:
        """Poison it; without a sanitizer the memory stays until `release`."""
        self.check_guards()
        self.bytes[:] = FREED
        self.freed = True
        if self._watched:
            _libc.free(self._place)

    def release(self) -> None:
        """At the end: check poison and guards, and free the memory."""
        if not self.freed or self._watched:
            return
        self.check_guards()
        changed = bool((self.bytes != FREED).any())
        _libc.free(self._place)
        if changed:
            raise WrittenAfterFree(self.name)

    def check_guards(self) -> None:
        """Raises OutOfBounds where bytes before or after it were written."""
        for side, start in (("before", self._place), ("behind", self.address + self.size_bytes)):
            if (_bytes_at(start, self._guard_bytes) != GUARD).any():
                raise OutOfBounds(f"bytes {side} {self.name} were written")

    def check_inside(self, what: str, offset: int, size_bytes: int) -> None:
        """Raises UseAfterFree or OutOfBounds."""
        if self.freed:
            raise UseAfterFree(f"{what}: {self.name}")
        if offset < 0 or size_bytes < 0 or offset + size_bytes > self.size_bytes:
            raise OutOfBounds(f"{what}: {size_bytes} bytes from {offset} of {self.name}, which has {self.size_bytes}")

    def _fill(self, start: int, size_bytes: int, value: int) -> None:
        _bytes_at(start, size_bytes)[:] = value


class Memory:
    """All blocks of a device, alive and freed."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._alive: dict[int, Block] = {}
        self._starts: list[int] = []
        self._freed: list[Block] = []

    @property
    def used_bytes(self) -> int:
        """Of the blocks alive."""
        return sum(block.size_bytes for block in self._alive.values())

    @property
    def alive(self) -> list[str]:
        """Names of blocks that are not freed."""
        return [block.name for block in self._alive.values()]

    def allocate(self, size_bytes: int, name: str) -> Block:
        """A block full of `UNINITIALISED`."""
        block = Block(size_bytes, name, UNINITIALISED)
        self._alive[block.address] = block
        bisect.insort(self._starts, block.address)
        return block

    def free(self, block: Block) -> None:
        """Free a block. Raises DoubleFree."""
        if block.freed:
            raise DoubleFree(block.name)
        del self._alive[block.address]
        self._starts.remove(block.address)
        self._freed.append(block)
        block.free()

    def at(self, address: int, what: str) -> Block:
        """The block that contains an address or ends there. Raises UseAfterFree, OutOfBounds."""
        place = bisect.bisect_right(self._starts, address) - 1
        if place >= 0:
            block = self._alive[self._starts[place]]
            if address <= block.address + block.size_bytes:
                return block
        for block in reversed(self._freed):
            if block.address <= address < block.address + max(block.size_bytes, 1):
                raise UseAfterFree(f"{what}: {block.name}")
        raise OutOfBounds(f"{what}: {address:#x} is in no buffer")

    def check_guards(self) -> None:
        """Raises OutOfBounds where bytes beside a block were written."""
        for block in self._alive.values():
            block.check_guards()

    def close(self) -> None:
        """Raises OutOfBounds or WrittenAfterFree where a check fails at the end."""
        self.check_guards()
        for block in self._freed:
            block.release()
        self._freed.clear()


def array_at(address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[np.generic]:
    """Memory as an array, without a copy and without any check."""
    size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return _bytes_at(address, size_bytes).view(dtype).reshape(shape)


def _bytes_at(address: int, size_bytes: int) -> UInt8:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))
