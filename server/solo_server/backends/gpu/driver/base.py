"""What the GPU path needs of a CUDA device. `driver.py` implements it; `tests/support/gpu/fake_device.py` enforces its rules.

Everything put on a stream happens later, in order, and not before `Event.synchronize` or `Stream.synchronize` is known to have
happened. Streams know nothing of each other but through events. Whatever fails raises a `DeviceFailure`.
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
    """One GPU. capability: compute capability, such as `(7, 0)`; driver: CUDA version that the driver has, such as `12.8`."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    multiprocessors: int
    driver: str


class DeviceBuffer(Protocol):
    """Device memory; given back by `free`, once, when nothing that is queued uses it any more."""

    @property
    def address(self) -> int:
        """Where it begins, a multiple of 256."""
        ...

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        ...

    def free(self) -> None:
        """Give it back."""
        ...


class PinnedBuffer(Protocol):
    """Page-locked host memory, which copies to and from the device without a detour."""

    @property
    def array(self) -> UInt8:
        """The memory itself, `(size_bytes,) uint8`. Not to be touched between a queued copy and its end."""
        ...

    def free(self) -> None:
        """Give it back; `array` must not be used afterwards."""
        ...


class Event(Protocol):
    """A mark on a stream."""

    def synchronize(self) -> None:
        """Wait until the stream has come to the mark; raises what has failed before it."""
        ...

    def milliseconds_since(self, earlier: Event) -> float:
        """Between two timed marks that both have been reached."""
        ...


class Kernel(Protocol):
    """One kernel of a loaded module."""

    @property
    def name(self) -> str:
        """As in the source."""
        ...


class Graph(Protocol):
    """Work that was captured once and can be queued again as one piece, with the same addresses and sizes."""

    def launch(self, stream: Stream) -> None:
        """Queue it."""
        ...

    def free(self) -> None:
        """Give it back."""
        ...


class Module(Protocol):
    """A loaded cubin."""

    def kernel(self, name: str) -> Kernel:
        """A kernel by its name; raises `DeviceFailure` where there is none."""
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
        """Queue a kernel; arguments are copied now. A grid with a zero queues nothing."""
        ...

    def record(self, event: Event) -> None:
        """Queue a mark."""
        ...

    def wait(self, event: Event) -> None:
        """Queue waiting for another stream's mark."""
        ...

    def capture(self) -> AbstractContextManager[Capture]:
        """Inside of the block work is noted instead of done; afterwards the capture has a `graph`."""
        ...

    def synchronize(self) -> None:
        """Wait for all that is queued; raises what has failed."""
        ...


class Capture(Protocol):
    """What `Stream.capture` gives."""

    @property
    def graph(self) -> Graph:
        """The captured work, once the block has ended."""
        ...


class Device(Protocol):
    """One GPU. May be used from several threads."""

    @property
    def info(self) -> DeviceInfo:
        """What it is."""
        ...

    def allocate(self, size_bytes: int, name: str) -> DeviceBuffer:
        """Device memory, uninitialised; `name` is for messages. Raises `DeviceOutOfMemory`."""
        ...

    def allocate_pinned(self, size_bytes: int, name: str) -> PinnedBuffer:
        """Page-locked host memory. Raises `DeviceOutOfMemory`."""
        ...

    def create_stream(self) -> Stream:
        """A stream that does not wait for the default one."""
        ...

    def create_event(self, *, timed: bool = False) -> Event:
        """A mark, not yet on any stream."""
        ...

    def load(self, cubin: bytes) -> Module:
        """Load compiled kernels. Raises `DeviceFailure` where they are for another GPU."""
        ...

    def use(self) -> None:
        """Make this device the calling thread's; needed once a thread before anything else."""
        ...
