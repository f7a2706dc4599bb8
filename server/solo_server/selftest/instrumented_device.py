"""A device that records which memory is allocated under which name, and when each kind of work of its stream begins.

    backend ─► InstrumentedDevice ─► the device
                 ├ buffers by name, read when a batch is done
                 └ InstrumentedStream: a timed event wherever the kind of work changes ─► intervals

Only the self-test uses it: each event costs a microsecond.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from solo_server.backends.gpu.driver.base import (
    Capture,
    Device,
    DeviceBuffer,
    DeviceInfo,
    Event,
    Kernel,
    Module,
    PinnedBuffer,
    Size3,
    Stream,
)
from solo_server.backends.gpu.network import BatchShape, DeviceNetwork, NetworkMemory, NetworkSlot

H2D, D2H, IDLE, CLEAR, NETWORK = "h2d", "d2h", "idle", "clear", "network"

T = TypeVar("T", bound=np.generic)


class InstrumentedDevice:
    """See `Device`. buffers: device memory by name, the last allocation last; pinned_bytes: page-locked memory by name."""

    def __init__(self, device: Device) -> None:
        self.inner = device
        self.buffers: dict[str, list[DeviceBuffer]] = {}
        self.pinned_bytes: dict[str, int] = {}
        self.streams: list[InstrumentedStream] = []

    @property
    def info(self) -> DeviceInfo:
        """See `Device.info`."""
        return self.inner.info

    def allocate(self, size_bytes: int, name: str) -> DeviceBuffer:
        """See `Device.allocate`."""
        buffer = self.inner.allocate(size_bytes, name)
        self.buffers.setdefault(name, []).append(buffer)
        return buffer

    def allocate_pinned(self, size_bytes: int, name: str) -> PinnedBuffer:
        """See `Device.allocate_pinned`."""
        self.pinned_bytes[name] = self.pinned_bytes.get(name, 0) + size_bytes
        return self.inner.allocate_pinned(size_bytes, name)

    def create_stream(self) -> Stream:
        """See `Device.create_stream`."""
        stream = InstrumentedStream(self.inner, self.inner.create_stream())
        self.streams.append(stream)
        return stream

    def create_event(self, *, timed: bool = False) -> Event:
        """See `Device.create_event`."""
        return self.inner.create_event(timed=timed)

    def load(self, cubin: bytes) -> Module:
        """See `Device.load`."""
        return self.inner.load(cubin)

    def use(self) -> None:
        """See `Device.use`."""
        self.inner.use()

    def device_bytes(self) -> dict[str, int]:
        """Bytes of device memory by name."""
        return {name: sum(buffer.size_bytes for buffer in buffers) for name, buffers in self.buffers.items()}

    def read(self, name: str, kind: type[T], count: int, offset: int = 0) -> NDArray[T]:
        """`count` values of the buffer last allocated under `name`, from `offset` bytes on; no queued work may write it."""
        stream = self.streams[-1].inner
        size_bytes = count * np.dtype(kind).itemsize
        pinned = self.inner.allocate_pinned(max(size_bytes, 1), "the self-test's copy")
        try:
            stream.download(pinned, self.buffers[name][-1], size_bytes, source_offset=offset)
            stream.synchronize()
            return pinned.array[:size_bytes].copy().view(kind)
        finally:
            pinned.free()


class InstrumentedStream:
    """See `Stream`. Inside of `timed`, events are recorded where one kind of work ends and another begins."""

    def __init__(self, device: Device, stream: Stream) -> None:
        self.inner, self._device = stream, device
        self._events: list[Event] = []
        self._marks: list[str] = []
        self._is_timed = False

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Record events inside of the block; `intervals_ms` reads them after the stream was synchronised."""
        self._marks, self._is_timed = [], True
        try:
            yield
        finally:
            self._is_timed = False

    def intervals_ms(self) -> list[tuple[str, float]]:
        """Each kind of work and how long it took, in the order of the stream, without the time of waiting for the host."""
        spans = zip(self._marks, self._events, self._events[1 : len(self._marks)], strict=False)
        return [(name, end.milliseconds_since(start)) for name, start, end in spans if name != IDLE]

    def mark(self, name: str) -> None:
        """Work that is queued from now on is of kind `name`."""
        if not self._is_timed or (self._marks and self._marks[-1] == name):
            return
        if len(self._marks) == len(self._events):
            self._events.append(self._device.create_event(timed=True))
        self.inner.record(self._events[len(self._marks)])
        self._marks.append(name)

    @property
    def handle(self) -> int:
        """See `Stream.handle`."""
        return self.inner.handle

    def upload(
        self,
        target: DeviceBuffer,
        source: PinnedBuffer,
        size_bytes: int,
        target_offset: int = 0,
        source_offset: int = 0,
    ) -> None:
        """See `Stream.upload`."""
        self.mark(H2D)
        self.inner.upload(target, source, size_bytes, target_offset, source_offset)

    def download(
        self,
        target: PinnedBuffer,
        source: DeviceBuffer,
        size_bytes: int,
        target_offset: int = 0,
        source_offset: int = 0,
    ) -> None:
        """See `Stream.download`. The host may wait after it; that time is not counted."""
        self.mark(D2H)
        self.inner.download(target, source, size_bytes, target_offset, source_offset)
        self.mark(IDLE)

    def clear(self, target: DeviceBuffer, size_bytes: int, offset: int = 0) -> None:
        """See `Stream.clear`."""
        self.mark(CLEAR)
        self.inner.clear(target, size_bytes, offset)

    def launch(
        self,
        kernel: Kernel,
        grid: Size3,
        block: Size3,
        arguments: tuple[ctypes.Structure | ctypes.c_int32, ...],
        shared_bytes: int = 0,
    ) -> None:
        """See `Stream.launch`."""
        if 0 not in grid:
            self.mark(kernel.name)
        self.inner.launch(kernel, grid, block, arguments, shared_bytes)

    def record(self, event: Event) -> None:
        """See `Stream.record`."""
        self.inner.record(event)

    def wait(self, event: Event) -> None:
        """See `Stream.wait`."""
        self.inner.wait(event)

    def capture(self) -> AbstractContextManager[Capture]:
        """See `Stream.capture`."""
        return self.inner.capture()

    def synchronize(self) -> None:
        """See `Stream.synchronize`."""
        self.inner.synchronize()


class InstrumentedNetwork:
    """See `DeviceNetwork`: its slots mark when the network runs. The network gets the inner stream, which CUDA graphs need."""

    def __init__(self, network: DeviceNetwork) -> None:
        self._network = network

    @property
    def description(self) -> str:
        """See `DeviceNetwork.description`."""
        return self._network.description

    @property
    def slots(self) -> int:
        """See `DeviceNetwork.slots`."""
        return self._network.slots

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        """See `DeviceNetwork.shapes`."""
        return self._network.shapes

    def run_as(self, shape: BatchShape) -> BatchShape:
        """See `DeviceNetwork.run_as`."""
        return self._network.run_as(shape)

    def open_slot(self, stream: Stream, memory: NetworkMemory) -> NetworkSlot:
        """See `DeviceNetwork.open_slot`."""
        if not isinstance(stream, InstrumentedStream):
            return self._network.open_slot(stream, memory)
        return _InstrumentedSlot(self._network.open_slot(stream.inner, memory), stream)

    def note_run(self) -> None:
        """See `DeviceNetwork.note_run`."""
        self._network.note_run()

    def close(self) -> None:
        """See `DeviceNetwork.close`."""
        self._network.close()


class _InstrumentedSlot:
    def __init__(self, slot: NetworkSlot, stream: InstrumentedStream) -> None:
        self._slot, self._stream = slot, stream

    def categories(self, shape: BatchShape) -> None:
        self._stream.mark(f"{NETWORK}: categories")
        self._slot.categories(shape)
        self._stream.mark(IDLE)

    def masks(self, shape: BatchShape, group: int) -> None:
        self._stream.mark(f"{NETWORK}: masks")
        self._slot.masks(shape, group)
        self._stream.mark(IDLE)

    def close(self) -> None:
        self._slot.close()
