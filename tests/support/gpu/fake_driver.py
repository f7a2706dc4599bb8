"""A fake of the module `cuda.bindings.driver`: records calls, and returns the codes that a test sets.

`tests/gpu_packages/test_driver_api.py` compares its functions with the real module's.
"""

from __future__ import annotations

import ctypes
import enum
import inspect
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from solo_server.backends.gpu.driver.calls import LOST

_OTHERS = ("INVALID_VALUE", "NO_DEVICE", "NO_BINARY_FOR_GPU", "NOT_FOUND", "LAUNCH_OUT_OF_RESOURCES", "INVALID_HANDLE")
CODES = ("CUDA_SUCCESS", "CUDA_ERROR_OUT_OF_MEMORY", *(f"CUDA_ERROR_{name}" for name in _OTHERS), *sorted(LOST))


class FakeDriver(ModuleType):
    """The module. calls: what was called; codes: what the next call of a function answers; devices: how many GPUs there are."""

    def __init__(self, devices: int = 1) -> None:
        super().__init__("cuda.bindings.driver")
        self.CUresult: Any = enum.Enum("CUresult", {name: number for number, name in enumerate(CODES)})  # type: ignore[misc]
        self.CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
        self.CUevent_flags = SimpleNamespace(CU_EVENT_DEFAULT=0, CU_EVENT_BLOCKING_SYNC=1, CU_EVENT_DISABLE_TIMING=2)
        self.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local")
        self.CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")
        self.CUdevice_attribute = SimpleNamespace(
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=7,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=0,
            CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT=80,
        )
        self.calls: list[tuple[Any, ...]] = []
        self.codes: dict[str, str | Exception] = {}
        self.devices = devices
        self.parameter_sizes: list[int] = []
        self.parameters: list[bytes] = []
        self._handle = 0x7000_0000
        self._host: list[Any] = []
        for name, answer in _ANSWERS.items():
            setattr(self, name, self._function(name, answer))

    def names(self) -> list[str]:
        """Of the functions called so far."""
        return [call[0] for call in self.calls]

    def handle(self) -> int:
        """A new one, as addresses of device memory are."""
        self._handle += 0x1000
        return self._handle

    def host(self, size_bytes: int) -> int:
        """Where so much memory lies."""
        self._host.append(ctypes.create_string_buffer(b"\xcd" * size_bytes, size_bytes))
        return ctypes.addressof(self._host[-1])

    def note_parameters(self, places: int) -> None:
        """What a kernel would find, argument by argument."""
        pointers = (ctypes.c_void_p * len(self.parameter_sizes)).from_address(places)
        self.parameters = [
            ctypes.string_at(pointer or 0, size) for pointer, size in zip(pointers, self.parameter_sizes, strict=True)
        ]

    def _function(self, name: str, answer: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
        takes = len(inspect.signature(answer).parameters) - 1

        def function(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            if len(arguments) != takes:
                raise TypeError(f"{name} takes {takes} arguments, not {len(arguments)}")
            code = self.codes.pop(name, "CUDA_SUCCESS")
            if isinstance(code, Exception):
                raise code
            value = answer(self, *arguments)
            if value is None:
                return (getattr(self.CUresult, code),)
            return (getattr(self.CUresult, code), value if code == "CUDA_SUCCESS" else None)

        function.__name__ = name
        return function


_ANSWERS: dict[str, Callable[..., Any]] = {
    "cuInit": lambda fake, flags: None,
    "cuDriverGetVersion": lambda fake: 12_040,
    "cuDeviceGetCount": lambda fake: fake.devices,
    "cuDeviceGet": lambda fake, ordinal: ordinal,
    "cuDeviceGetName": lambda fake, length, dev: (b"Fake V100\0" + b" " * length)[:length],
    "cuDeviceGetAttribute": lambda fake, attrib, dev: attrib,
    "cuDeviceTotalMem": lambda fake, dev: 16 << 30,
    "cuDevicePrimaryCtxRetain": lambda fake, dev: "context",
    "cuCtxSetCurrent": lambda fake, ctx: None,
    "cuMemAlloc": lambda fake, bytesize: fake.handle(),
    "cuMemFree": lambda fake, pointer: None,
    "cuMemHostAlloc": lambda fake, bytesize, flags: fake.host(bytesize),
    "cuMemFreeHost": lambda fake, pointer: None,
    "cuMemcpyHtoDAsync": lambda fake, target, source, size, stream: None,
    "cuMemcpyDtoHAsync": lambda fake, target, source, size, stream: None,
    "cuMemsetD8Async": lambda fake, target, value, size, stream: None,
    "cuStreamCreate": lambda fake, flags: fake.handle(),
    "cuStreamSynchronize": lambda fake, stream: None,
    "cuStreamWaitEvent": lambda fake, stream, event, flags: None,
    "cuStreamBeginCapture": lambda fake, stream, mode: None,
    "cuStreamEndCapture": lambda fake, stream: fake.handle(),
    "cuEventCreate": lambda fake, flags: fake.handle(),
    "cuEventRecord": lambda fake, event, stream: None,
    "cuEventSynchronize": lambda fake, event: None,
    "cuEventElapsedTime": lambda fake, start, end: 1.5,
    "cuGraphInstantiate": lambda fake, graph, flags: fake.handle(),
    "cuGraphDestroy": lambda fake, graph: None,
    "cuGraphLaunch": lambda fake, graph, stream: None,
    "cuGraphExecDestroy": lambda fake, graph: None,
    "cuModuleLoadData": lambda fake, image: "module",
    "cuModuleGetFunction": lambda fake, module, name: name.decode(),
    "cuFuncSetAttribute": lambda fake, function, attribute, value: None,
    "cuLaunchKernel": lambda fake, f, gx, gy, gz, bx, by, bz, shared, stream, params, extra: fake.note_parameters(
        params
    ),
}
FUNCTIONS = {name: len(inspect.signature(answer).parameters) - 1 for name, answer in _ANSWERS.items()}
