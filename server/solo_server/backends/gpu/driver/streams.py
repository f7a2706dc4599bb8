"""Streams, events, graphs and kernels of NVIDIA's driver.

They live as long as the process, since a server creates them once. Only graphs are freed, because batch shapes change.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

from solo_server.backends.gpu.driver.base import (
    Capture,
    DeviceBuffer,
    Event,
    Graph,
    Kernel,
    PinnedBuffer,
    Size3,
    Stream,
)
from solo_server.backends.gpu.driver.calls import CheckedCalls
from solo_server.errors import DeviceFailure

T = TypeVar("T")


class DriverKernel:
    """A kernel; see `Kernel`."""

    def __init__(self, call: CheckedCalls, handle: Any, name: str) -> None:
        self._call, self.handle, self._name = call, handle, name
        self._shared_bytes, self._lock = 0, Lock()

    @property
    def name(self) -> str:
        """The name in the source."""
        return self._name

    def allow_shared(self, size_bytes: int) -> None:
        """Raise the limit of dynamic shared memory to `size_bytes`, unless it is already that large.

        Only needed where dynamic and static shared memory exceed 48 KiB together. Slots in several threads share the kernel: a
        smaller limit must never replace a larger one, or the other thread's launch is refused.
        """
        with self._lock:
            if size_bytes > self._shared_bytes:
                cu = self._call.driver
                attribute = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self._call(cu.cuFuncSetAttribute, self.handle, attribute, size_bytes, purpose=self._name)
                self._shared_bytes = size_bytes


class DriverModule:
    """A loaded cubin; see `Module`."""

    def __init__(self, call: CheckedCalls, handle: Any) -> None:
        self._call, self._handle = call, handle

    def kernel(self, name: str) -> DriverKernel:
        """A kernel by its name. Raises `DeviceFailure`: no such kernel."""
        handle = self._call(self._call.driver.cuModuleGetFunction, self._handle, name.encode(), purpose=name)
        return DriverKernel(self._call, handle, name)


class DriverEvent:
    """See `Event`."""

    def __init__(self, call: CheckedCalls, timed: bool) -> None:
        cu = call.driver
        flags = int(cu.CUevent_flags.CU_EVENT_DEFAULT)
        if not timed:  # waiting sleeps; the driver's default is to spin, on a core that decoding needs
            flags = int(cu.CUevent_flags.CU_EVENT_DISABLE_TIMING) | int(cu.CUevent_flags.CU_EVENT_BLOCKING_SYNC)
        self._call, self.handle = call, call(cu.cuEventCreate, flags)

    def synchronize(self) -> None:
        """Wait until the stream has reached the event; raises errors of earlier work."""
        self._call(self._call.driver.cuEventSynchronize, self.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Time between two timed events that both have been reached."""
        start = _own(DriverEvent, earlier).handle
        elapsed: float = self._call(self._call.driver.cuEventElapsedTime, start, self.handle)
        return elapsed


class DriverGraph:
    """Captured work; see `Graph`."""

    def __init__(self, call: CheckedCalls, captured: Any) -> None:
        cu = call.driver
        self._call = call
        try:
            self._handle: Any = call(cu.cuGraphInstantiate, captured, 0)
        finally:
            call(cu.cuGraphDestroy, captured)

    def launch(self, stream: Stream) -> None:
        """Queue it."""
        if self._handle is None:
            raise DeviceFailure("a graph was launched after it had been freed")
        self._call(self._call.driver.cuGraphLaunch, self._handle, _own(DriverStream, stream).stream)

    def free(self) -> None:
        """Free it."""
        if self._handle is None:
            raise DeviceFailure("a graph was freed twice")
        handle, self._handle = self._handle, None
        self._call(self._call.driver.cuGraphExecDestroy, handle)


class DriverCapture:
    """What `DriverStream.capture` gives; see `Capture`."""

    def __init__(self) -> None:
        self._graph: DriverGraph | None = None

    @property
    def graph(self) -> Graph:
        """The captured work, once the block has ended."""
        if self._graph is None:
            raise DeviceFailure("a capture has no graph before its block has ended")
        return self._graph

    def ended(self, graph: DriverGraph) -> None:
        """Set the graph."""
        self._graph = graph


class DriverStream:
    """See `Stream`. It does not wait for the default stream, nor the default stream for it."""

    def __init__(self, call: CheckedCalls) -> None:
        cu = call.driver
        self._call, self._cu = call, cu
        self.stream = call(cu.cuStreamCreate, int(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))

    @property
    def handle(self) -> int:
        """The `cudaStream_t`, for TensorRT and ONNX Runtime."""
        return int(self.stream)

    def upload(
        self,
        target: DeviceBuffer,
        source: PinnedBuffer,
        size_bytes: int,
        target_offset: int = 0,
        source_offset: int = 0,
    ) -> None:
        """Queue a copy from host to device."""
        _check_inside("upload target", target_offset, size_bytes, target.size_bytes)
        _check_inside("upload source", source_offset, size_bytes, source.array.size)
        if size_bytes:
            host = source.array.ctypes.data + source_offset
            self._call(self._cu.cuMemcpyHtoDAsync, target.address + target_offset, host, size_bytes, self.stream)

    def download(
        self,
        target: PinnedBuffer,
        source: DeviceBuffer,
        size_bytes: int,
        target_offset: int = 0,
        source_offset: int = 0,
    ) -> None:
        """Queue a copy from device to host."""
        _check_inside("download target", target_offset, size_bytes, target.array.size)
        _check_inside("download source", source_offset, size_bytes, source.size_bytes)
        if size_bytes:
            host = target.array.ctypes.data + target_offset
            self._call(self._cu.cuMemcpyDtoHAsync, host, source.address + source_offset, size_bytes, self.stream)

    def clear(self, target: DeviceBuffer, size_bytes: int, offset: int = 0) -> None:
        """Queue setting bytes to zero."""
        _check_inside("clear", offset, size_bytes, target.size_bytes)
        if size_bytes:
            self._call(self._cu.cuMemsetD8Async, target.address + offset, 0, size_bytes, self.stream)

    def launch(
        self,
        kernel: Kernel,
        grid: Size3,
        block: Size3,
        arguments: tuple[ctypes.Structure | ctypes.c_int32, ...],
        shared_bytes: int = 0,
    ) -> None:
        """Queue a kernel; the driver copies the arguments before it returns."""
        if 0 in grid:
            return
        own = _own(DriverKernel, kernel)
        own.allow_shared(shared_bytes)
        places = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        self._call(
            self._cu.cuLaunchKernel,
            own.handle, *grid, *block, shared_bytes, self.stream, ctypes.addressof(places), 0,
            purpose=own.name,
        )  # fmt: skip

    def record(self, event: Event) -> None:
        """Queue an event."""
        self._call(self._cu.cuEventRecord, _own(DriverEvent, event).handle, self.stream)

    def wait(self, event: Event) -> None:
        """Queue waiting for an event of another stream."""
        self._call(self._cu.cuStreamWaitEvent, self.stream, _own(DriverEvent, event).handle, 0)

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """Inside of the block work is captured instead of queued; other threads are not affected."""
        capture = DriverCapture()
        mode = self._cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(self._cu.cuStreamBeginCapture, self.stream, mode)
        try:
            yield capture
        except BaseException:
            self._drop_capture()
            raise
        capture.ended(DriverGraph(self._call, self._call(self._cu.cuStreamEndCapture, self.stream)))

    def synchronize(self) -> None:
        """Wait for all queued work; raises its errors."""
        self._call(self._cu.cuStreamSynchronize, self.stream)

    def _drop_capture(self) -> None:
        """End a capture whose block failed. Its result code is ignored: the error of the block is raised."""
        _, *graph = self._cu.cuStreamEndCapture(self.stream)
        if graph and graph[0] is not None and int(graph[0]):
            self._cu.cuGraphDestroy(graph[0])


def _own(kind: type[T], thing: object) -> T:
    if not isinstance(thing, kind):
        raise TypeError(f"{type(thing).__name__} is not of this device, whose is {kind.__name__}")
    return thing


def _check_inside(what: str, offset: int, size_bytes: int, capacity_bytes: int) -> None:
    if offset < 0 or size_bytes < 0 or offset + size_bytes > capacity_bytes:
        raise DeviceFailure(f"{what}: {size_bytes} bytes from {offset} are not within {capacity_bytes}")
