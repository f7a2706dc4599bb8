"""Calls of NVIDIA's driver, their order, and how results are converted; with a fake of its Python module."""

from __future__ import annotations

import ctypes
import sys
from threading import Thread

import pytest
from solo_server.backends.gpu.driver.base import Device
from solo_server.backends.gpu.driver.calls import LOST
from solo_server.backends.gpu.driver.driver import DriverDevice, find_devices, open_device
from solo_server.backends.gpu.driver.streams import DriverStream
from solo_server.backends.gpu.postprocess.batch import Batch
from solo_server.errors import DeviceFailure, DeviceLost, DeviceOutOfMemory, SettingsError
from support.gpu.fake_driver import FakeDriver


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver()
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", fake)
    return fake


@pytest.fixture
def device(driver: FakeDriver) -> DriverDevice:
    opened = open_device()
    driver.calls.clear()
    return opened


@pytest.fixture
def stream(device: DriverDevice, driver: FakeDriver) -> DriverStream:
    created = device.create_stream()
    driver.calls.clear()
    return created


def test_a_device_says_what_it_is(driver: FakeDriver) -> None:
    device: Device = open_device()
    about = device.info
    assert (about.name, about.capability, about.multiprocessors) == ("Fake V100", (7, 0), 80)
    assert (about.memory_bytes, about.driver) == (16 << 30, "12.4")


def test_opening_takes_the_primary_context_and_makes_it_the_threads(driver: FakeDriver) -> None:
    open_device()
    assert driver.calls[-2:] == [("cuDevicePrimaryCtxRetain", 0), ("cuCtxSetCurrent", "context")]


def test_all_devices_are_found_without_taking_a_context(driver: FakeDriver) -> None:
    driver.devices = 2
    found = find_devices()
    assert [device.name for device in found.devices] == ["Fake V100"] * 2
    assert found.reason == ""
    assert "cuDevicePrimaryCtxRetain" not in driver.names()


@pytest.mark.parametrize(
    ("codes", "devices", "message"),
    [
        ({"cuInit": RuntimeError("no libcuda")}, 1, "no libcuda"),
        ({"cuInit": "CUDA_ERROR_NO_DEVICE"}, 0, "CUDA_ERROR_NO_DEVICE"),
        ({"cuInit": "CUDA_ERROR_UNKNOWN"}, 1, "CUDA_ERROR_UNKNOWN"),
        ({}, 0, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_machine_without_a_gpu_says_why(
    driver: FakeDriver, codes: dict[str, str | Exception], devices: int, message: str
) -> None:
    driver.codes, driver.devices = dict(codes), devices
    found = find_devices()
    assert found.devices == ()
    assert message in found.reason
    driver.codes = dict(codes)
    with pytest.raises(SettingsError, match=message):
        open_device()


def test_missing_bindings_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(SettingsError, match=r"pip install -c constraints\.txt -e '\.\[gpu\]'"):
        open_device()
    assert "-e '.[gpu]'" in find_devices().reason


@pytest.mark.parametrize(("release", "is_refused"), [("12.6.2.post1", True), ("12.9.0", True), ("12.9.1", False)])
def test_bindings_that_keep_the_interpreter_lock_while_they_wait_are_refused(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, release: str, is_refused: bool
) -> None:
    monkeypatch.setattr("solo_server.backends.gpu.driver.driver.version", lambda name: release)
    found = find_devices()
    assert ("12.9.1 is needed" in found.reason) == is_refused
    assert bool(found.devices) != is_refused


def test_a_gpu_that_cannot_be_described_is_not_offered(driver: FakeDriver) -> None:
    driver.codes["cuDeviceGetName"] = "CUDA_ERROR_ECC_UNCORRECTABLE"
    found = find_devices()
    assert found.devices == ()
    assert "cuDeviceGetName: CUDA_ERROR_ECC_UNCORRECTABLE" in found.reason


@pytest.mark.parametrize("ordinal", [-1, 1])
def test_a_device_that_is_not_there_is_refused(driver: FakeDriver, ordinal: int) -> None:
    with pytest.raises(SettingsError, match=f"no GPU {ordinal}"):
        open_device(ordinal)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("CUDA_ERROR_OUT_OF_MEMORY", DeviceOutOfMemory),
        ("CUDA_ERROR_INVALID_VALUE", DeviceFailure),
        *((code, DeviceLost) for code in sorted(LOST)),
    ],
)
def test_codes_become_errors_that_name_call_purpose_and_code(
    device: DriverDevice, driver: FakeDriver, code: str, kind: type[DeviceFailure]
) -> None:
    driver.codes["cuMemAlloc"] = code
    with pytest.raises(DeviceFailure, match=rf"cuMemAlloc \(scores, 12 bytes\): {code}") as found:
        device.allocate(12, "scores")
    assert type(found.value) is kind


def test_a_function_that_the_driver_lacks_is_a_failure(device: DriverDevice, driver: FakeDriver) -> None:
    driver.codes["cuMemAlloc"] = RuntimeError('Function "cuMemAlloc" not found')
    with pytest.raises(DeviceFailure, match="not found"):
        device.allocate(12, "scores")
    device.allocate(12, "scores")


def test_after_the_device_is_lost_nothing_is_called_any_more(
    device: DriverDevice, stream: DriverStream, driver: FakeDriver
) -> None:
    buffer, event = device.allocate(4, "some"), device.create_event()
    driver.codes["cuStreamSynchronize"] = "CUDA_ERROR_ILLEGAL_ADDRESS"
    with pytest.raises(DeviceLost, match="cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS"):
        stream.synchronize()
    driver.calls.clear()
    for call in (stream.synchronize, event.synchronize, buffer.free, device.use, device.create_stream):
        with pytest.raises(DeviceLost, match="since cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS"):
            call()
    assert driver.calls == []


def test_other_failures_leave_the_device_usable(device: DriverDevice, driver: FakeDriver) -> None:
    for code in ("CUDA_ERROR_OUT_OF_MEMORY", "CUDA_ERROR_INVALID_VALUE"):
        driver.codes["cuMemAlloc"] = code
        with pytest.raises(DeviceFailure):
            device.allocate(4, "some")
    assert device.allocate(4, "some").size_bytes == 4


def test_memory_is_freed_once_and_not_used_afterwards(device: DriverDevice, driver: FakeDriver) -> None:
    buffer = device.allocate(4, "some")
    address = buffer.address
    buffer.free()
    with pytest.raises(DeviceFailure, match="freed twice"):
        buffer.free()
    with pytest.raises(DeviceFailure, match="after it had been freed"):
        _ = buffer.address
    assert driver.calls == [("cuMemAlloc", 4), ("cuMemFree", address)]


def test_a_buffer_of_no_bytes_has_an_address(device: DriverDevice, driver: FakeDriver) -> None:
    buffer = device.allocate(0, "nothing")
    assert (buffer.size_bytes, buffer.address > 0) == (0, True)
    assert driver.calls == [("cuMemAlloc", 1)]


def test_pinned_memory_is_an_array_until_it_is_freed_once(device: DriverDevice, driver: FakeDriver) -> None:
    pinned = device.allocate_pinned(6, "slot")
    assert pinned.array.tolist() == [0xCD] * 6
    pinned.array[2] = 1
    place = pinned.array.ctypes.data
    assert ctypes.string_at(place, 6) == b"\xcd\xcd\x01\xcd\xcd\xcd"
    pinned.free()
    with pytest.raises(DeviceFailure, match="freed twice"):
        pinned.free()
    with pytest.raises(DeviceFailure, match="after it had been freed"):
        _ = pinned.array
    assert driver.calls == [("cuMemHostAlloc", 6, 0), ("cuMemFreeHost", place)]


def test_streams_do_not_wait_for_the_default_one(device: DriverDevice, driver: FakeDriver) -> None:
    stream = device.create_stream()
    assert driver.calls == [("cuStreamCreate", 1)]
    assert stream.handle == stream.stream


def test_copies_go_from_offset_to_offset(device: DriverDevice, stream: DriverStream, driver: FakeDriver) -> None:
    buffer, pinned = device.allocate(100, "some"), device.allocate_pinned(100, "slot")
    host = pinned.array.ctypes.data
    driver.calls.clear()
    stream.upload(buffer, pinned, 30, target_offset=10, source_offset=70)
    stream.download(pinned, buffer, 30, target_offset=70, source_offset=10)
    stream.clear(buffer, 5, offset=95)
    stream.clear(buffer, 0, offset=100)
    assert driver.calls == [
        ("cuMemcpyHtoDAsync", buffer.address + 10, host + 70, 30, stream.stream),
        ("cuMemcpyDtoHAsync", host + 70, buffer.address + 10, 30, stream.stream),
        ("cuMemsetD8Async", buffer.address + 95, 0, 5, stream.stream),
    ]


@pytest.mark.parametrize(
    ("size", "at", "start"), [(101, 0, 0), (30, 71, 0), (30, 0, 71), (1, -1, 0), (1, 0, -1), (-1, 0, 0)]
)
def test_copies_beyond_a_buffer_are_refused(
    device: DriverDevice, stream: DriverStream, driver: FakeDriver, size: int, at: int, start: int
) -> None:
    buffer, pinned = device.allocate(100, "some"), device.allocate_pinned(100, "slot")
    driver.calls.clear()
    with pytest.raises(DeviceFailure, match="not within 100"):
        stream.upload(buffer, pinned, size, at, start)
    with pytest.raises(DeviceFailure, match="not within 100"):
        stream.download(pinned, buffer, size, at, start)
    with pytest.raises(DeviceFailure, match="not within 100"):
        stream.clear(buffer, size, at or start)
    assert driver.calls == []


def test_a_kernel_finds_its_struct_and_ints_as_they_were(
    device: DriverDevice, stream: DriverStream, driver: FakeDriver
) -> None:
    batch = Batch()
    content = bytes(i % 251 for i in range(ctypes.sizeof(Batch)))
    ctypes.memmove(ctypes.addressof(batch), content, len(content))
    driver.parameter_sizes = [len(content), 4, 4]
    kernel = device.load(b"cubin").kernel("project")
    stream.launch(kernel, (1, 2, 3), (4, 5, 6), (batch, ctypes.c_int32(7), ctypes.c_int32(-8)), shared_bytes=9)
    assert kernel.name == "project"
    assert driver.parameters == [content, (7).to_bytes(4, "little"), (-8).to_bytes(4, "little", signed=True)]
    assert driver.calls[:2] == [("cuModuleLoadData", b"cubin"), ("cuModuleGetFunction", "module", b"project")]
    assert driver.calls[2] == ("cuFuncSetAttribute", "project", "shared", 9)
    assert driver.calls[3][:10] == ("cuLaunchKernel", "project", 1, 2, 3, 4, 5, 6, 9, stream.stream)
    assert driver.calls[3][11:] == (0,)


@pytest.mark.parametrize("grid", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_grid_with_a_zero_queues_nothing(
    device: DriverDevice, stream: DriverStream, driver: FakeDriver, grid: tuple[int, int, int]
) -> None:
    kernel = device.load(b"cubin").kernel("project")
    driver.calls.clear()
    stream.launch(kernel, grid, (1, 1, 1), (Batch(),))
    assert driver.calls == []


def test_a_launch_that_fails_names_its_kernel(device: DriverDevice, stream: DriverStream, driver: FakeDriver) -> None:
    driver.codes["cuLaunchKernel"] = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"
    kernel = device.load(b"cubin").kernel("project")
    with pytest.raises(DeviceFailure, match=r"cuLaunchKernel \(project\): CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"):
        stream.launch(kernel, (1, 1, 1), (1, 1, 1), ())


def test_dynamic_shared_memory_is_asked_for_when_it_grows(
    device: DriverDevice, stream: DriverStream, driver: FakeDriver
) -> None:
    kernel = device.load(b"cubin").kernel("project")
    driver.calls.clear()
    for size in (0, 40, 60, 60, 50):
        stream.launch(kernel, (1, 1, 1), (1, 1, 1), (), shared_bytes=size)
    asked, launch = "cuFuncSetAttribute", "cuLaunchKernel"
    assert driver.names() == [launch, asked, launch, asked, launch, launch, launch]
    assert [call for call in driver.calls if call[0] == asked] == [
        (asked, "project", "shared", 40),
        (asked, "project", "shared", 60),
    ]


def test_who_asks_for_less_shared_memory_never_has_the_last_word(
    device: DriverDevice, stream: DriverStream, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread asks for more just before the driver has noted less."""
    kernel, noted = device.load(b"cubin").kernel("project"), list[int]()
    other = Thread(target=stream.launch, args=(kernel, (1, 1, 1), (1, 1, 1), (), 60))
    original = driver.cuFuncSetAttribute

    def note(handle: object, attribute: object, size_bytes: int) -> object:
        if size_bytes == 40:
            other.start()
            other.join(0.2)
        noted.append(size_bytes)
        return original(handle, attribute, size_bytes)

    note.__name__ = "cuFuncSetAttribute"
    monkeypatch.setattr(driver, "cuFuncSetAttribute", note)
    stream.launch(kernel, (1, 1, 1), (1, 1, 1), (), shared_bytes=40)
    other.join()
    assert noted == [40, 60]


def test_modules_that_do_not_fit_and_kernels_that_are_not_there_are_failures(
    device: DriverDevice, driver: FakeDriver
) -> None:
    driver.codes["cuModuleLoadData"] = "CUDA_ERROR_NO_BINARY_FOR_GPU"
    with pytest.raises(DeviceFailure, match="NO_BINARY_FOR_GPU"):
        device.load(b"cubin")
    driver.codes["cuModuleGetFunction"] = "CUDA_ERROR_NOT_FOUND"
    with pytest.raises(DeviceFailure, match=r"\(project\): CUDA_ERROR_NOT_FOUND"):
        device.load(b"cubin").kernel("project")


def test_events_are_timed_only_where_asked(device: DriverDevice, stream: DriverStream, driver: FakeDriver) -> None:
    plain, timed = device.create_event(), device.create_event(timed=True)
    stream.record(timed)
    stream.wait(plain)
    timed.synchronize()
    assert timed.milliseconds_since(plain) == 1.5
    assert driver.calls == [
        ("cuEventCreate", 1 | 2),
        ("cuEventCreate", 0),
        ("cuEventRecord", timed.handle, stream.stream),
        ("cuStreamWaitEvent", stream.stream, plain.handle, 0),
        ("cuEventSynchronize", timed.handle),
        ("cuEventElapsedTime", plain.handle, timed.handle),
    ]


def test_a_capture_becomes_a_graph_that_is_launched_and_given_back(
    device: DriverDevice, stream: DriverStream, driver: FakeDriver
) -> None:
    with stream.capture() as capture, pytest.raises(DeviceFailure, match="before its block has ended"):
        _ = capture.graph
    graph = capture.graph
    graph.launch(stream)
    graph.free()
    for call in (graph.free, lambda: graph.launch(stream)):
        with pytest.raises(DeviceFailure, match="freed"):
            call()
    captured, ready = driver.calls[2][1], driver.calls[4][1]
    assert driver.calls == [
        ("cuStreamBeginCapture", stream.stream, "thread local"),
        ("cuStreamEndCapture", stream.stream),
        ("cuGraphInstantiate", captured, 0),
        ("cuGraphDestroy", captured),
        ("cuGraphLaunch", ready, stream.stream),
        ("cuGraphExecDestroy", ready),
    ]


@pytest.mark.parametrize("code", ["CUDA_SUCCESS", "CUDA_ERROR_INVALID_VALUE"])
def test_a_capture_whose_block_fails_is_ended_and_tells_that(
    stream: DriverStream, driver: FakeDriver, code: str
) -> None:
    driver.codes["cuStreamEndCapture"] = code
    with pytest.raises(ZeroDivisionError), stream.capture():
        _ = 1 / 0
    ended = ["cuStreamBeginCapture", "cuStreamEndCapture"]
    assert driver.names() == ended + (["cuGraphDestroy"] if code == "CUDA_SUCCESS" else [])


def test_a_capture_that_cannot_become_a_graph_is_given_back(stream: DriverStream, driver: FakeDriver) -> None:
    driver.codes["cuGraphInstantiate"] = "CUDA_ERROR_OUT_OF_MEMORY"
    with pytest.raises(DeviceOutOfMemory), stream.capture():
        pass
    assert driver.names()[-2:] == ["cuGraphInstantiate", "cuGraphDestroy"]


def test_things_of_another_kind_of_device_are_refused(stream: DriverStream) -> None:
    class Strange:
        name = "strange"

        def synchronize(self) -> None: ...

        def milliseconds_since(self, earlier: object) -> float:
            return 0.0

    with pytest.raises(TypeError, match="Strange is not of this device"):
        stream.launch(Strange(), (1, 1, 1), (1, 1, 1), ())
    with pytest.raises(TypeError, match="Strange is not of this device"):
        stream.record(Strange())
