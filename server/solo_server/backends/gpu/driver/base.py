"""What the GPU path needs of a CUDA device. `driver.py` implements it; `tests/support/gpu/fake_device.py` enforces its rules.

Work on a stream runs later and in order. It is known to be done only after `Event.synchronize` or `Stream.synchronize` returns.
Streams are ordered among each other by events alone. Whatever fails raises a `DeviceFailure`.
"""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from solo_server.types import UInt8

Size3 = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One GPU. capability: compute capability, such as `(7, 0)`; driver: CUDA version of the driver, such as `12.8`."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    multiprocessors: int
    driver: str


class DeviceBuffer(Protocol):
    """Device memory. `free` is called once, when no queued work uses it any more."""

    @property
    def address(self) -> int:
        """Address of the first byte, a multiple of 256."""
        ...

    @property
    def size_bytes(self) -> int:
        """Its size."""
        ...

    def free(self) -> None:
        """Free it."""
        ...


class PinnedBuffer(Protocol):
    """Page-locked host memory, which is copied to and from the device directly."""

    @property
    def array(self) -> UInt8:
        """The memory itself, `(size_bytes,) uint8`. Must not be used between a queued copy and its end."""
        ...

    def free(self) -> None:
        """Free it; `array` must not be used afterwards."""
        ...


class Event(Protocol):
    """A point in the work of a stream."""

    def synchronize(self) -> None:
        """Wait until the stream has reached the event; raises errors of earlier work."""
        ...

    def milliseconds_since(self, earlier: Event) -> float:
        """Time between two timed events that both have been reached."""
        ...


class Kernel(Protocol):
    """One kernel of a loaded module."""

    @property
    def name(self) -> str:
        """The name in the source."""
        ...


class Graph(Protocol):
    """Captured work, which can be queued again as a whole, with the same addresses and sizes."""

    def launch(self, stream: Stream) -> None:
        """Queue it."""
        ...

    def free(self) -> None:
        """Free it."""
        ...


class Module(Protocol):
    """A loaded cubin."""

    def kernel(self, name: str) -> Kernel:
        """A kernel by its name. Raises `DeviceFailure`: no such kernel."""
        ...


class Stream(Protocol):
    """A queue of work on the device."""

    @property
    def handle(self) -> int:
        """The `cudaStream_t`, for TensorRT and ONNX Runtime."""
        ...

    def upload(
        self,
        target: DeviceBuffer,
        source: PinnedBuffer,
        size_bytes: int,
        target_offset: int = 0,
        source_offset: int = 0,
    ) -> None:
        """Queue a copy from host to device."""
        ...

    def download(
        self,
        target: PinnedBuffer,
        source: DeviceBuffer,
        size_bytes: int,
        target_offset: int = 0,
        source_offset: int = 0,
    ) -> None:
        """Queue a copy from device to host."""
        ...

    def clear(self, target: DeviceBuffer, size_bytes: int, offset: int = 0) -> None:
        """Queue setting bytes to zero."""
        ...

    def launch(
        self,
        kernel: Kernel,
        grid: Size3,
        block: Size3,
        arguments: tuple[ctypes.Structure | ctypes.c_int32, ...],
        shared_bytes: int = 0,
    ) -> None:
        """Queue a kernel; arguments are copied immediately. A grid with a zero queues nothing."""
        ...

    def record(self, event: Event) -> None:
        """Queue an event."""
        ...

    def wait(self, event: Event) -> None:
        """Queue waiting for an event of another stream."""
        ...

    def capture(self) -> AbstractContextManager[Capture]:
        """Inside of the block work is captured instead of queued; afterwards the capture has a `graph`."""
        ...

    def synchronize(self) -> None:
        """Wait for all queued work; raises its errors."""
        ...


class Capture(Protocol):
    """The target of `Stream.capture`."""

    @property
    def graph(self) -> Graph:
        """The captured work, once the block has ended."""
        ...


class Device(Protocol):
    """One GPU. May be used from several threads."""

    @property
    def info(self) -> DeviceInfo:
        """Its properties."""
        ...

    def allocate(self, size_bytes: int, name: str) -> DeviceBuffer:
        """Uninitialised device memory; `name` is for messages. Raises `DeviceOutOfMemory`."""
        ...

    def allocate_pinned(self, size_bytes: int, name: str) -> PinnedBuffer:
        """Page-locked host memory. Raises `DeviceOutOfMemory`."""
        ...

    def create_stream(self) -> Stream:
        """A stream that does not wait for the default stream."""
        ...

    def create_event(self, *, timed: bool = False) -> Event:
        """An event, not yet on any stream."""
        ...

    def load(self, cubin: bytes) -> Module:
        """Load compiled kernels. Raises `DeviceFailure` where they are for another GPU."""
        ...

    def use(self) -> None:
        """Make this device current in the calling thread; needed once in each thread before any other call."""
        ...
