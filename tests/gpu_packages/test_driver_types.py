"""NVIDIA's bindings take every argument as we give it.

Each call goes to the real function first, which converts its arguments before it finds that there is no driver here.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import pytest
from cuda.bindings import driver
from solo_server.backends.gpu.driver.driver import find_devices, open_device
from solo_server.backends.gpu.postprocess.batch import Batch
from solo_server.errors import DeviceFailure
from support.gpu.fake_driver import FUNCTIONS, FakeDriver

ENUMERATIONS = (
    "CUresult", "CUstream_flags", "CUevent_flags", "CUstreamCaptureMode", "CUfunction_attribute", "CUdevice_attribute",
)  # fmt: skip
HANDLES = {
    "cuDeviceGet": driver.CUdevice,
    "cuDevicePrimaryCtxRetain": driver.CUcontext,
    "cuMemAlloc": driver.CUdeviceptr,
    "cuStreamCreate": driver.CUstream,
    "cuStreamEndCapture": driver.CUgraph,
    "cuEventCreate": driver.CUevent,
    "cuGraphInstantiate": driver.CUgraphExec,
    "cuModuleLoadData": driver.CUmodule,
    "cuModuleGetFunction": driver.CUfunction,
}


class TypedDriver(FakeDriver):
    """The fake driver, whose functions the real ones precede, with the real handles and enumerations."""

    def __init__(self) -> None:
        super().__init__()
        for name in ENUMERATIONS:
            setattr(self, name, getattr(driver, name))
        for name in FUNCTIONS:
            setattr(self, name, self._typed(name, getattr(self, name), getattr(driver, name)))

    def _typed(
        self, name: str, fake: Callable[..., tuple[Any, ...]], real: Callable[..., Any]
    ) -> Callable[..., tuple[Any, ...]]:
        def function(*arguments: Any) -> tuple[Any, ...]:
            with pytest.raises(RuntimeError, match="NVIDIA driver library"):
                real(*arguments)
            result, *values = fake(*arguments)
            if name in HANDLES:
                values = [HANDLES[name](value if isinstance(value, int) else self.handle()) for value in values]
            return (result, *values)

        function.__name__ = name
        return function


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> TypedDriver:
    assert find_devices().devices == (), "with a driver these calls would be made in earnest"
    module = TypedDriver()
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", module)
    return module


def test_every_call_that_we_make_has_arguments_of_the_right_types(typed: TypedDriver) -> None:
    device = open_device()
    buffer, pinned = device.allocate(64, "some"), device.allocate_pinned(64, "slot")
    stream, events = device.create_stream(), [device.create_event(timed=timed) for timed in (True, False)]
    typed.parameter_sizes = [ctypes.sizeof(Batch), 4]
    kernel = device.load(b"cubin").kernel("project")
    with stream.capture() as capture:
        stream.upload(buffer, pinned, 32, 1, 2)
        stream.clear(buffer, 8, 3)
        stream.launch(kernel, (1, 2, 3), (4, 5, 6), (Batch(), ctypes.c_int32(7)), shared_bytes=8)
        stream.download(pinned, buffer, 32, 1, 2)
    capture.graph.launch(stream)
    for event in events:
        stream.record(event)
        stream.wait(event)
        event.synchronize()
    assert events[1].milliseconds_since(events[0]) == 1.5
    stream.synchronize()
    capture.graph.free()
    buffer.free()
    pinned.free()
    assert isinstance(stream.handle, int)
    assert isinstance(buffer.size_bytes, int)
    assert set(typed.names()) == set(FUNCTIONS)


@pytest.mark.parametrize(("code", "message"), [(2, "CUDA_ERROR_OUT_OF_MEMORY"), (700, "CUDA_ERROR_ILLEGAL_ADDRESS")])
def test_real_codes_are_reported_by_name(typed: TypedDriver, code: int, message: str) -> None:
    device = open_device()
    typed.codes["cuMemAlloc"] = driver.CUresult(code).name
    with pytest.raises(DeviceFailure, match=message):
        device.allocate(4, "some")
