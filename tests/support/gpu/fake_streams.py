"""Streams, events and graphs of the fake device: what is checked when work is queued, and what the work then does."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
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
from solo_server.types import UInt8
from support.gpu.cuda_rules import (
    CaptureBroken,
    DoubleFree,
    FreedWhileQueued,
    NotRecorded,
    NotTimed,
    PinnedRace,
    UseAfterFree,
)
from support.gpu.fake_buffers import FakeBuffer, FakePinned
from support.gpu.fake_memory import UNDELIVERED
from support.gpu.fake_queue import Work

if TYPE_CHECKING:
    from support.gpu.fake_device import FakeDevice

Argument = ctypes.Structure | ctypes.c_int32


class FakeEvent:
    """See `Event`."""

    def __init__(self, device: FakeDevice, timed: bool) -> None:
        self.device, self.timed = device, timed
        self.mark: Work | None = None
        self.reached_s = 0.0

    def synchronize(self) -> None:
        """Wait until the stream has reached the event."""
        with self.device.entered("Event.synchronize", while_capturing=False):
            self.device.finish(self.recorded("Event.synchronize"))

    def milliseconds_since(self, earlier: Event) -> float:
        """Time between two timed events that both have been reached."""
        with self.device.entered("Event.milliseconds_since"):
            start = self.device.own(FakeEvent, earlier)
            for event in (start, self):
                if not event.timed or not event.recorded("milliseconds_since").known:
                    raise NotTimed("an event has no timing, or nobody has waited for it")
            return (self.reached_s - start.reached_s) * 1e3

    def recorded(self, what: str) -> Work:
        """The mark. Raises NotRecorded."""
        if self.mark is None:
            raise NotRecorded(what)
        return self.mark


class FakeGraph:
    """Captured work; see `Graph`."""

    def __init__(self, device: FakeDevice) -> None:
        self.device, self.freed = device, False
        self.nodes: list[Callable[[FakeStream], None]] = []
        self.last: Work | None = None

    def launch(self, stream: Stream) -> None:
        """Queue it, behind its own last launch too."""
        with self.device.entered("Graph.launch"):
            if self.freed:
                raise UseAfterFree("a graph")
            on = self.device.own(FakeStream, stream)
            if on.capturing is not None:
                raise CaptureBroken("a graph was launched into a capture")
            if self.last is not None:
                on.queue(Work("graph after its last launch", _nothing, before=[self.last]))
            for node in self.nodes:
                node(on)
            self.last = self.device.queues.last(on.handle)

    def free(self) -> None:
        """Free it."""
        with self.device.entered("Graph.free"):
            if self.freed:
                raise DoubleFree("a graph")
            if self.last is not None and not self.last.known:
                raise FreedWhileQueued("a graph")
            self.freed = True


class FakeCapture:
    """See `Capture`."""

    def __init__(self) -> None:
        self.captured: FakeGraph | None = None

    @property
    def graph(self) -> Graph:
        """The captured work, once the block has ended."""
        if self.captured is None:
            raise CaptureBroken("a capture has no graph before its block has ended")
        return self.captured


class FakeStream:
    """A queue of work; see `Stream`."""

    def __init__(self, device: FakeDevice, handle: int) -> None:
        self.device, self._handle = device, handle
        self.capturing: FakeGraph | None = None

    @property
    def handle(self) -> int:
        """A number; `device.stream` gives the stream back."""
        return self._handle

    def upload(
        self,
        target: DeviceBuffer,
        source: PinnedBuffer,
        size_bytes: int,
        target_offset: int = 0,
        source_offset: int = 0,
    ) -> None:
        """Queue a copy from host to device: read as late as chance will have it, so that writing too early shows."""
        with self.device.entered("Stream.upload"):
            to, host = self.device.own(FakeBuffer, target), self.device.own(FakePinned, source)
            to.block.check_inside("upload target", target_offset, size_bytes)
            host.block.check_inside("upload source", source_offset, size_bytes)
            self._do(lambda stream: stream.queue_upload(to, host, size_bytes, target_offset, source_offset))

    def download(
        self,
        target: PinnedBuffer,
        source: DeviceBuffer,
        size_bytes: int,
        target_offset: int = 0,
        source_offset: int = 0,
    ) -> None:
        """Queue a copy from device to host: poison lies there until the host has waited for it."""
        with self.device.entered("Stream.download"):
            host, of = self.device.own(FakePinned, target), self.device.own(FakeBuffer, source)
            host.block.check_inside("download target", target_offset, size_bytes)
            of.block.check_inside("download source", source_offset, size_bytes)
            self._do(lambda stream: stream.queue_download(host, of, size_bytes, target_offset, source_offset))

    def clear(self, target: DeviceBuffer, size_bytes: int, offset: int = 0) -> None:
        """Queue setting bytes to zero."""
        with self.device.entered("Stream.clear"):
            block = self.device.own(FakeBuffer, target).block
            block.check_inside("clear", offset, size_bytes)

            def run() -> None:
                block.bytes[offset : offset + size_bytes] = 0

            self._do(lambda stream: stream.queue(Work("clear", run, (block,))))

    def launch(
        self,
        kernel: Kernel,
        grid: Size3,
        block: Size3,
        arguments: tuple[Argument, ...],
        shared_bytes: int = 0,
    ) -> None:
        """Queue a kernel; arguments are copied immediately. A grid with a zero queues nothing."""
        with self.device.entered("Stream.launch"):
            copied, ints = self.device.check_launch(kernel, grid, block, arguments, shared_bytes)
            if 0 in grid:
                return
            emulator, name = self.device.emulator, kernel.name

            def run() -> None:
                self.device.blocks_of(copied, name)
                emulator.launch(name, grid, block, copied, *ints, shared_bytes=shared_bytes)

            self._do(lambda stream: stream.queue(Work(name, run, self.device.blocks_of(copied, name))))

    def call(self, function: Callable[[], None], uses: tuple[int, ...] = (), name: str = "call") -> None:
        """Queue a function that computes "on the device". uses: addresses in the buffers that it needs."""
        with self.device.entered("Stream.call"):

            def queue(stream: FakeStream) -> None:
                blocks = tuple(self.device.memory.at(address, name) for address in uses)
                stream.queue(Work(name, function, blocks))

            self._do(queue)

    def record(self, event: Event) -> None:
        """Queue an event."""
        with self.device.entered("Stream.record"):
            own = self.device.own(FakeEvent, event)
            self._refuse_capture("record")

            def reached() -> None:
                own.reached_s = time.perf_counter()

            own.mark = Work("record", reached)
            self.queue(own.mark)

    def wait(self, event: Event) -> None:
        """Queue waiting for an event of another stream."""
        with self.device.entered("Stream.wait"):
            self._refuse_capture("wait")
            mark = self.device.own(FakeEvent, event).recorded("Stream.wait")
            self.queue(Work("wait", _nothing, before=[mark]))

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """Inside of the block work is captured instead of queued."""
        capture, graph = FakeCapture(), FakeGraph(self.device)
        with self.device.entered("Stream.capture", while_capturing=False):
            self._refuse_capture("capture")
            self.capturing = graph
            self.device.captures[threading.get_ident()] += 1
        try:
            yield capture
        finally:
            with self.device.watched():
                self.capturing = None
                self.device.captures[threading.get_ident()] -= 1
        with self.device.entered("end of capture"):
            self.device.graphs.append(graph)
            capture.captured = graph

    def synchronize(self) -> None:
        """Wait for all queued work."""
        with self.device.entered("Stream.synchronize", while_capturing=False):
            self._refuse_capture("synchronize")
            last = self.device.queues.last(self.handle)
            if last is not None:
                self.device.finish(last)

    def queue(self, work: Work) -> None:
        """Behind what the stream has; fails where the device dies of it."""
        run = work.run

        def run_on_device() -> None:
            self.device.run(run)

        work.run = run_on_device
        self.device.queues.add(self.handle, work)

    def queue_upload(self, to: FakeBuffer, host: FakePinned, size_bytes: int, at: int, start: int) -> None:
        """See `upload`."""
        source, target = host.block.bytes[start : start + size_bytes], to.block.bytes[at : at + size_bytes]
        given = source.copy()

        def check() -> None:
            if not np.array_equal(source, given):
                raise PinnedRace(f"{host.block.name} was written before its upload was known to be done")

        def run() -> None:
            check()
            target[:] = source

        work = Work("upload", run, (to.block, host.block), check)
        host.claim(start, size_bytes, False, work)
        self.queue(work)

    def queue_download(self, host: FakePinned, of: FakeBuffer, size_bytes: int, at: int, start: int) -> None:
        """See `download`."""
        target, source = host.block.bytes[at : at + size_bytes], of.block.bytes[start : start + size_bytes]
        came: list[UInt8] = []

        def run() -> None:
            came.append(source.copy())

        def deliver() -> None:
            if not came:
                return
            if (target != UNDELIVERED).any():
                raise PinnedRace(f"{host.block.name} was written before its download was known to be done")
            target[:] = came[0]

        work = Work("download", run, (of.block, host.block), deliver)
        host.claim(at, size_bytes, True, work)
        target[:] = UNDELIVERED
        self.queue(work)

    def _do(self, queue: Callable[[FakeStream], None]) -> None:
        if self.capturing is not None:
            self.capturing.nodes.append(queue)
        else:
            queue(self)

    def _refuse_capture(self, what: str) -> None:
        if self.capturing is not None:
            raise CaptureBroken(f"{what} on a stream that captures")


def _nothing() -> None:
    """Work that only stands for an order."""
