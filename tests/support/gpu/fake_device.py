"""A fake CUDA device: the kernels run in the emulator, and every rule of CUDA that a program may break is watched.

    device = FakeDevice(seed=3)          # each seed is another order of events that a real device might take
    ...                                  # as with any `Device`; a breach raises a `Breach` that says what was done
    device.close()                       # raises what was swallowed before, and what was never freed

Beyond `Device`: faults can be asked for (`fail_allocation`, `fail_launch`, `lose`), `stream.call` queues a Python function, of
which fake networks are made, and inside of it `device.array` gives it device memory.
"""

from __future__ import annotations

import ctypes
import functools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from solo_server.backends.gpu.driver.base import DeviceInfo, Kernel, Size3
from solo_server.errors import DeviceFailure, DeviceLost, DeviceOutOfMemory
from support.gpu.cuda_rules import (
    Breach,
    CaptureBroken,
    Foreign,
    FreedWhileQueued,
    Leaked,
    TouchedByHost,
    UseAfterFree,
    WrongLaunch,
    WrongThread,
)
from support.gpu.emulator import Emulator
from support.gpu.fake_buffers import FakeBuffer, FakePinned
from support.gpu.fake_memory import Block, Memory, array_at
from support.gpu.fake_queue import Queues, Work
from support.gpu.fake_streams import Argument, FakeEvent, FakeGraph, FakeStream
from support.paths import ROOT

MOST_THREADS, MOST_GRID = 1024, (2**31 - 1, 65_535, 65_535)
MOST_REGISTERS, MOST_SHARED_BYTES = 65_536, 64 << 10  # of a block: what each architecture from sm_70 on has at least
COSTS = ROOT / "benchmarks" / "results" / "kernels.json"
T = TypeVar("T")


class FakeKernel:
    """A kernel; see `Kernel`."""

    def __init__(self, name: str, ints: int) -> None:
        self._name, self.ints = name, ints

    @property
    def name(self) -> str:
        """The name in the source."""
        return self._name


class FakeModule:
    """The emulator's kernels; see `Module`."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device

    def kernel(self, name: str) -> FakeKernel:
        """A kernel by its name. Raises `DeviceFailure`: no such kernel."""
        with self._device.entered("Module.kernel"):
            if name not in self._device.emulator.kernels:
                raise DeviceFailure(f"cuModuleGetFunction ({name}): CUDA_ERROR_NOT_FOUND, says the fake")
            return FakeKernel(name, self._device.emulator.kernels[name])


class FakeDevice:
    """One GPU that is none; see `Device`.

    seed: which of the orders that CUDA allows; memory_bytes: beyond this allocations fail.
    """

    def __init__(
        self, seed: int = 0, memory_bytes: int = 1 << 30, emulator: Emulator | None = None, sms: int = 80
    ) -> None:
        self.queues, self.memory = Queues(seed), Memory(memory_bytes)
        self.breaches: list[Breach] = []
        self.launches: Counter[str] = Counter()
        self.graphs: list[FakeGraph] = []
        self.captures: Counter[int] = Counter()
        self._emulator, self._sms = emulator, sms
        self._streams: dict[int, FakeStream] = {}
        self._lock, self._threads = threading.RLock(), threading.local()
        self._running = False
        self._allocations, self._failing = 0, set[int]()
        self._failing_launches: dict[str, int] = {}
        self._until_lost: int | None = None
        self._lost: DeviceLost | None = None
        self.use()

    @property
    def info(self) -> DeviceInfo:
        """What it is: no GPU."""
        return DeviceInfo("fake GPU (emulated on the CPU)", (7, 0), self.memory.total_bytes, self._sms, "12.4")

    @property
    def emulator(self) -> Emulator:
        """Runs the kernels; compiled when first asked for."""
        if self._emulator is None:
            self._emulator = Emulator()
        return self._emulator

    def allocate(self, size_bytes: int, name: str) -> FakeBuffer:
        """Device memory full of 0xCD."""
        return FakeBuffer(self, size_bytes, name)

    def allocate_pinned(self, size_bytes: int, name: str) -> FakePinned:
        """Page-locked memory full of 0xCD."""
        return FakePinned(self, size_bytes, name)

    def create_stream(self) -> FakeStream:
        """A stream that does not wait for the default stream."""
        with self.entered("create_stream"):
            handle = 0x5000 + len(self._streams)
            self._streams[handle] = FakeStream(self, handle)
            return self._streams[handle]

    def create_event(self, *, timed: bool = False) -> FakeEvent:
        """An event, not yet on any stream."""
        with self.entered("create_event"):
            return FakeEvent(self, timed)

    def load(self, cubin: bytes) -> FakeModule:
        """The emulator's kernels, whatever the cubin holds."""
        with self.entered("load", while_capturing=False):
            return FakeModule(self)

    def use(self) -> None:
        """Make this device current in the calling thread."""
        self._threads.used = True
        with self.entered("use"):
            pass

    def fail_allocation(self, *numbers: int) -> None:
        """Let the n-th allocations from now on fail, of either kind of memory, counted from 1."""
        self._failing = {self._allocations + number for number in numbers}

    def fail_launch(self, kernel: str, number: int = 1) -> None:
        """Let the n-th launch of a kernel from now on fail, counted from 1."""
        self._failing_launches[kernel] = self.launches[kernel] + number

    def lose(self, after: int = 0) -> None:
        """Die of the next work that runs, or after so many more pieces; waiting tells it, and every call from then on."""
        self._until_lost = after

    def stream(self, handle: int) -> FakeStream:
        """The stream of a handle, for fakes of libraries that are given one."""
        with self.entered("stream"):
            if handle not in self._streams:
                raise Foreign(f"{handle:#x} is no stream")
            return self._streams[handle]

    def array(self, address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Device memory as an array, only for functions that `Stream.call` has queued."""
        with self.watched():
            if not self._running:
                raise TouchedByHost(f"{address:#x}")
            block = self.memory.at(address, "array")
            size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            block.check_inside("array", address - block.address, size_bytes)
            return array_at(address, shape, dtype)

    def close(self) -> None:
        """The end. Raises the first breach there was, if somebody swallowed it, and `Leaked`."""
        if self.breaches:
            raise self.breaches[0]
        if self._lost is None:
            leaks = self.memory.alive + ["a graph" for graph in self.graphs if not graph.freed]
            if leaks:
                raise Leaked(", ".join(leaks))
        self.memory.close()

    @contextmanager
    def entered(self, what: str, *, while_capturing: bool = True) -> Iterator[None]:
        """A call: one at a time, from a thread that may, on a device that lives."""
        with self.watched():
            if not getattr(self._threads, "used", False):
                raise WrongThread(f"{what} from {threading.current_thread().name}")
            if not while_capturing and self.captures[threading.get_ident()]:
                raise CaptureBroken(f"{what} while this thread captures")
            if self._lost is not None:
                raise DeviceLost(f"{what}: the device is lost since {self._lost}")
            yield

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Breaches inside are remembered, so that none is lost to an `except`."""
        with self._lock:
            try:
                yield
            except Breach as breach:
                self.broken(breach)
                raise

    def broken(self, breach: Breach) -> Breach:
        """Remember a breach."""
        if breach not in self.breaches:
            self.breaches.append(breach)
        return breach

    def own(self, kind: type[T], thing: Any) -> T:
        """A thing that must be this device's. Raises Foreign, UseAfterFree."""
        if not isinstance(thing, kind) or getattr(thing, "device", None) is not self:
            raise Foreign(f"{type(thing).__name__} instead of this device's {kind.__name__}")
        block = getattr(thing, "block", None)
        if block is not None and block.freed:
            raise UseAfterFree(block.name)
        return thing

    def new_block(self, size_bytes: int, name: str) -> Block:
        """Memory of either kind."""
        with self.entered(f"allocate {name}", while_capturing=False):
            self._allocations += 1
            if self._allocations in self._failing or self.memory.used_bytes + size_bytes > self.memory.total_bytes:
                raise DeviceOutOfMemory(f"{name}, {size_bytes} bytes: CUDA_ERROR_OUT_OF_MEMORY, says the fake")
            return self.memory.allocate(size_bytes, name)

    def free_block(self, block: Block) -> None:
        """Of either kind."""
        with self.entered(f"free {block.name}", while_capturing=False):
            users = [work.name for work in self.queues.users(block)]
            if users:
                raise FreedWhileQueued(f"{block.name} is used by {', '.join(users)}")
            self.memory.free(block)

    def check_launch(
        self, kernel: Kernel, grid: Size3, block: Size3, arguments: tuple[Argument, ...], shared_bytes: int
    ) -> tuple[ctypes.Structure, list[int]]:
        """A copy of the struct, and the ints. Raises WrongLaunch, or the DeviceFailure asked for."""
        if not isinstance(kernel, FakeKernel):
            raise Foreign(type(kernel).__name__)
        name = kernel.name
        self.launches[name] += 1
        if self._failing_launches.get(name) == self.launches[name]:
            raise DeviceFailure(f"cuLaunchKernel ({name}): CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, says the fake")
        if any(not 0 <= size <= most for size, most in zip(grid, MOST_GRID, strict=True)):
            raise WrongLaunch(f"{name}: grid {grid}")
        _check_cost(name, int(np.prod(block)), shared_bytes)
        if min(block) < 1 or int(np.prod(block)) > MOST_THREADS or block[2] > 64:
            raise WrongLaunch(f"{name}: block {block}")
        batch, ints = arguments[:1], [number.value for number in arguments if isinstance(number, ctypes.c_int32)]
        if len(ints) != kernel.ints or len(arguments) != 1 + len(ints) or not isinstance(batch[0], ctypes.Structure):
            raise WrongLaunch(f"{name} takes a struct and {kernel.ints} ints, not {arguments}")
        return type(batch[0]).from_buffer_copy(batch[0]), ints

    def blocks_of(self, batch: ctypes.Structure, what: str) -> tuple[Block, ...]:
        """Memory that the pointers of a kernel's struct lead to. Raises UseAfterFree, OutOfBounds."""
        found: dict[Block, None] = {}
        for name, kind in ((field[0], field[1]) for field in batch._fields_):
            value = getattr(batch, name)
            addresses = [value] if kind is ctypes.c_uint64 else list(value) if _is_pointers(kind) else []
            for address in addresses:
                if address:
                    found[self.memory.at(address, f"{what}, {name}")] = None
        return tuple(found)

    def finish(self, work: Work) -> None:
        """Wait for work, and for all that it comes after."""
        self.queues.finish(work)
        self.memory.check_guards()
        if self._lost is not None:
            raise self._lost

    def run(self, function: Callable[[], None]) -> None:
        """Do a piece of work, unless the device is dead or dies of it."""
        if self._until_lost is not None:
            self._until_lost -= 1
            if self._until_lost < 0:
                self._lost = self._lost or DeviceLost("CUDA_ERROR_ILLEGAL_ADDRESS, says the fake")
        if self._lost is not None:
            return
        self._running = True
        try:
            function()
        finally:
            self._running = False


@functools.cache
def _costs() -> dict[str, tuple[int, int]]:
    """Of each kernel on the architecture where it needs most: registers of a thread, static shared memory of a block."""
    kernels = json.loads(COSTS.read_text())["kernels"]
    return {
        name: (max(cost["registers"] for cost in each.values()), max(cost["shared_bytes"] for cost in each.values()))
        for name, each in kernels.items()
    }


def _check_cost(name: str, threads: int, shared_bytes: int) -> None:
    registers, static_bytes = _costs().get(name, (0, 0))
    if -(-registers // 8) * 8 * threads > MOST_REGISTERS:
        raise WrongLaunch(f"{name}: {threads} threads of {registers} registers")
    if static_bytes + shared_bytes > MOST_SHARED_BYTES:
        raise WrongLaunch(f"{name}: {static_bytes} and {shared_bytes} bytes of shared memory")


def _is_pointers(kind: Any) -> bool:
    return (
        isinstance(kind, type) and issubclass(kind, ctypes.Array) and getattr(kind, "_type_", None) is ctypes.c_uint64
    )
