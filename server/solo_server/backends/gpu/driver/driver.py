"""`Device` on NVIDIA's driver through `cuda-bindings`; only this file and `compile.py` import these.

    open_device ─► Device ─► buffers, streams, events, modules (streams.py) ─► checked calls (calls.py) ─► libcuda

It uses the primary context, as TensorRT and ONNX Runtime do, so that memory and streams are shared.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import numpy as np
from solo_models.install import install_command

from solo_server.backends.gpu.driver.base import DeviceInfo
from solo_server.backends.gpu.driver.calls import CheckedCalls
from solo_server.backends.gpu.driver.streams import DriverEvent, DriverModule, DriverStream
from solo_server.errors import DeviceFailure, SettingsError
from solo_server.types import UInt8

INSTALL = install_command("gpu")
NAME_BYTES = 256
BINDINGS = "cuda-bindings"
CHECK_DRIVER = (
    "nvidia-smi has to show it; a container needs the NVIDIA Container Toolkit, and --gpus all or compose's profile gpu"
)
OLDEST_DRIVER = 12_000  # CUDA 12.0 as cuDriverGetVersion returns it
OLDEST_BINDINGS = (12, 9, 1)  # earlier ones hold the interpreter lock while they wait, which blocks all other threads


class NoGpuError(SettingsError):
    """A command that needs a GPU cannot run here: this machine has no GPU, no driver, or lacks a package that the engine needs."""


@dataclass(frozen=True, slots=True)
class FoundDevices:
    """The GPUs of this machine by ordinal. reason: why there is none, otherwise empty."""

    devices: tuple[DeviceInfo, ...]
    reason: str = ""


def find_devices() -> FoundDevices:
    """All GPUs. Never raises: without a GPU, driver or bindings, or with a driver that fails, the result has the reason."""
    try:
        call = _started()
        return FoundDevices(tuple(_describe(call, ordinal) for ordinal in range(_count(call))))
    except (SettingsError, DeviceFailure) as problem:
        return FoundDevices((), str(problem))


def open_device(ordinal: int = 0) -> DriverDevice:
    """The GPU of that number, made current in the calling thread.

    Raises:
        SettingsError: no bindings, no driver or no such GPU; the message says what to do.
        DeviceFailure: the driver fails, or another process uses the GPU exclusively.
    """
    call = _started()
    count = _count(call)
    if not 0 <= ordinal < count:
        raise SettingsError(f"there is no GPU {ordinal}: the driver shows {count}, counted from 0")
    return DriverDevice(call, ordinal)


class DriverBuffer:
    """Device memory; see `DeviceBuffer`."""

    def __init__(self, call: CheckedCalls, size_bytes: int, name: str) -> None:
        self._call, self._size_bytes, self._name = call, size_bytes, name
        self._pointer: Any = call(call.driver.cuMemAlloc, max(size_bytes, 1), purpose=f"{name}, {size_bytes} bytes")

    @property
    def address(self) -> int:
        """Address of the first byte. Raises `DeviceFailure` after `free`."""
        if self._pointer is None:
            raise DeviceFailure(f"{self._name} was used after it had been freed")
        return int(self._pointer)

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return self._size_bytes

    def free(self) -> None:
        """Free it."""
        if self._pointer is None:
            raise DeviceFailure(f"{self._name} was freed twice")
        pointer, self._pointer = self._pointer, None
        self._call(self._call.driver.cuMemFree, pointer, purpose=self._name)


class DriverPinned:
    """Page-locked host memory; see `PinnedBuffer`."""

    def __init__(self, call: CheckedCalls, size_bytes: int, name: str) -> None:
        self._call, self._name = call, name
        purpose = f"{name}, {size_bytes} bytes"
        self._pointer: Any = call(call.driver.cuMemHostAlloc, max(size_bytes, 1), 0, purpose=purpose)
        kind = ctypes.c_uint8 * size_bytes
        self._array: UInt8 | None = np.ctypeslib.as_array(kind.from_address(int(self._pointer)))

    @property
    def array(self) -> UInt8:
        """The memory itself. Raises `DeviceFailure` after `free`."""
        if self._array is None:
            raise DeviceFailure(f"{self._name} was used after it had been freed")
        return self._array

    def free(self) -> None:
        """Free it."""
        if self._array is None:
            raise DeviceFailure(f"{self._name} was freed twice")
        self._array = None
        self._call(self._call.driver.cuMemFreeHost, self._pointer, purpose=self._name)


class DriverDevice:
    """One GPU; see `Device`."""

    def __init__(self, call: CheckedCalls, ordinal: int) -> None:
        cu = call.driver
        self._call, self._info = call, _describe(call, ordinal)
        self._context = call(cu.cuDevicePrimaryCtxRetain, call(cu.cuDeviceGet, ordinal), purpose=self._info.name)
        self.use()

    @property
    def info(self) -> DeviceInfo:
        """Its properties."""
        return self._info

    def allocate(self, size_bytes: int, name: str) -> DriverBuffer:
        """Uninitialised device memory; `name` is for messages. Raises `DeviceOutOfMemory`."""
        return DriverBuffer(self._call, size_bytes, name)

    def allocate_pinned(self, size_bytes: int, name: str) -> DriverPinned:
        """Page-locked host memory. Raises `DeviceOutOfMemory`."""
        return DriverPinned(self._call, size_bytes, name)

    def create_stream(self) -> DriverStream:
        """A stream that does not wait for the default stream."""
        return DriverStream(self._call)

    def create_event(self, *, timed: bool = False) -> DriverEvent:
        """An event, not yet on any stream."""
        return DriverEvent(self._call, timed)

    def load(self, cubin: bytes) -> DriverModule:
        """Load compiled kernels. Raises `DeviceFailure` where they are for another GPU."""
        return DriverModule(self._call, self._call(self._call.driver.cuModuleLoadData, cubin))

    def use(self) -> None:
        """Make this device current in the calling thread; needed once in each thread before any other call."""
        self._call(self._call.driver.cuCtxSetCurrent, self._context)


def _started() -> CheckedCalls:
    """The driver, initialised. Raises `SettingsError`, which says what is missing."""
    call = CheckedCalls(_bindings())
    try:
        call(call.driver.cuInit, 0)
        count = _count(call)
        release = int(call(call.driver.cuDriverGetVersion))
    except DeviceFailure as problem:
        raise SettingsError(
            f"there is no working NVIDIA driver or no GPU here ({problem}); {CHECK_DRIVER}"
        ) from problem
    if not count:
        raise SettingsError(f"the NVIDIA driver shows no GPU here (CUDA_VISIBLE_DEVICES may hide it); {CHECK_DRIVER}")
    if release < OLDEST_DRIVER:
        raise SettingsError(
            f"the NVIDIA driver is for CUDA {_release(release)}, and {_release(OLDEST_DRIVER)} is needed: install a newer "
            "one (branch R525 or above; R580 is the last for a V100)"
        )
    return call


def _bindings() -> ModuleType:
    try:
        module = import_module("cuda.bindings.driver")
    except ImportError as problem:
        raise SettingsError(f"a GPU needs NVIDIA's bindings ({problem}): {INSTALL}") from problem
    _check_release()
    return module


def _check_release() -> None:
    """Raises `SettingsError` for bindings that are too old. Without package metadata the version is unknown and not checked."""
    try:
        release = version(BINDINGS)
    except PackageNotFoundError:
        return
    if tuple(int(number) for number in re.findall(r"\d+", release)[:3]) < OLDEST_BINDINGS:
        oldest = ".".join(map(str, OLDEST_BINDINGS))
        raise SettingsError(
            f"{BINDINGS} {release} block every thread while they wait for a GPU; {oldest} is needed: {INSTALL}"
        )


def _count(call: CheckedCalls) -> int:
    return int(call(call.driver.cuDeviceGetCount))


def _describe(call: CheckedCalls, ordinal: int) -> DeviceInfo:
    cu = call.driver
    device = call(cu.cuDeviceGet, ordinal)
    about = cu.CUdevice_attribute

    def attribute(which: Any) -> int:
        return int(call(cu.cuDeviceGetAttribute, which, device))

    version = int(call(cu.cuDriverGetVersion))
    return DeviceInfo(
        name=call(cu.cuDeviceGetName, NAME_BYTES, device).split(b"\0")[0].decode().strip(),
        capability=(
            attribute(about.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
            attribute(about.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        ),
        memory_bytes=int(call(cu.cuDeviceTotalMem, device)),
        multiprocessors=attribute(about.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        driver=_release(version),
    )


def _release(version: int) -> str:
    """The CUDA release of a number from cuDriverGetVersion: 12040 is 12.4."""
    return f"{version // 1000}.{version % 1000 // 10}"
