"""The fake device finds each breach of CUDA's rules, and lets correct programs be, in whatever order it runs their work."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from solo_server.backends.gpu.driver.base import Device, DeviceBuffer, Kernel, PinnedBuffer, Stream
from solo_server.backends.gpu.postprocess.batch import Batch
from solo_server.errors import DeviceFailure, DeviceLost, DeviceOutOfMemory
from support.gpu.cuda_rules import (
    Breach,
    CaptureBroken,
    DoubleFree,
    Foreign,
    FreedWhileQueued,
    Leaked,
    NotRecorded,
    NotTimed,
    OutOfBounds,
    PinnedRace,
    TouchedByHost,
    UseAfterFree,
    WrittenAfterFree,
    WrongLaunch,
    WrongThread,
)
from support.gpu.emulator import Emulator
from support.gpu.fake_device import FakeDevice
from support.gpu.fake_memory import FREED, UNDELIVERED, UNINITIALISED, Block, array_at

SEEDS = range(8)
SOURCE = """
extern "C" __global__ void add(const Batch b, int value, int at) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < b.max_best) b.best_rows[at + i] += value;
}
"""


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(source=SOURCE)


@dataclass
class Program:
    """A device with the few things that most tests need: 64 ints on both sides."""

    device: FakeDevice
    stream: Stream
    rows: DeviceBuffer
    given: PinnedBuffer
    answer: PinnedBuffer
    kernel: Kernel

    def batch(self) -> ctypes.Structure:
        batch = Batch()
        batch.max_best, batch.best_rows = 64, self.rows.address
        return batch

    def add(self, value: int, at: int = 0, stream: Stream | None = None) -> None:
        arguments = (self.batch(), ctypes.c_int32(value), ctypes.c_int32(at))
        (stream or self.stream).launch(self.kernel, (2, 1, 1), (32, 1, 1), arguments)

    def upload(self, stream: Stream | None = None) -> None:
        (stream or self.stream).upload(self.rows, self.given, 256)

    def download(self, stream: Stream | None = None) -> None:
        (stream or self.stream).download(self.answer, self.rows, 256)

    def ints(self) -> list[int]:
        return sorted(set(self.answer.array.view(np.int32).tolist()))

    def end(self) -> None:
        for thing in (self.rows, self.given, self.answer):
            thing.free()
        self.device.close()


def make(seed: int, emulator: Emulator) -> Program:
    device = FakeDevice(seed, emulator=emulator)
    program = Program(
        device,
        device.create_stream(),
        device.allocate(256, "rows"),
        device.allocate_pinned(256, "given"),
        device.allocate_pinned(256, "results"),
        device.load(b"").kernel("add"),
    )
    program.given.array.view(np.int32)[:] = 5
    return program


@pytest.fixture(params=SEEDS)
def program(request: pytest.FixtureRequest, emulator: Emulator) -> Program:
    return make(request.param, emulator)


def test_it_is_a_device(emulator: Emulator) -> None:
    device: Device = FakeDevice(emulator=emulator)
    assert "fake" in device.info.name


def test_a_stream_works_in_order(program: Program) -> None:
    program.upload()
    program.add(2)
    program.add(3)
    program.download()
    program.stream.synchronize()
    assert program.ints() == [10]
    program.end()


def test_streams_work_in_order_of_events(program: Program) -> None:
    other, event = program.device.create_stream(), program.device.create_event()
    program.upload()
    program.add(2)
    program.stream.record(event)
    other.wait(event)
    program.download(other)
    other.synchronize()
    assert program.ints() == [7]
    program.end()


def test_an_event_that_is_recorded_again_is_waited_for_as_it_was(program: Program) -> None:
    other, event = program.device.create_stream(), program.device.create_event()
    program.upload()
    program.stream.record(event)
    other.wait(event)
    program.download(other)
    other.record(event)
    event.synchronize()
    assert program.ints() == [5]
    program.end()


def test_streams_without_an_event_between_them_come_in_either_order(emulator: Emulator) -> None:
    found = set()
    for seed in range(30):
        program = make(seed, emulator)
        other = program.device.create_stream()
        program.stream.clear(program.rows, 256)
        program.stream.synchronize()
        program.add(1)
        program.download(other)
        other.synchronize()
        program.stream.synchronize()
        found.add(tuple(program.ints()))
        program.end()
    assert found == {(0,), (1,)}


def test_memory_is_never_zero_at_first(program: Program) -> None:
    program.download()
    program.stream.synchronize()
    assert set(program.answer.array.tolist()) == {UNINITIALISED}
    assert program.device.allocate_pinned(3, "new").array.tolist() == [UNINITIALISED] * 3


def test_clear_sets_only_what_it_is_told(program: Program) -> None:
    program.stream.clear(program.rows, 8, offset=4)
    program.download()
    program.stream.synchronize()
    assert program.answer.array[:16].tolist() == [UNINITIALISED] * 4 + [0] * 8 + [UNINITIALISED] * 4


def test_offsets_of_copies_are_in_bytes(program: Program) -> None:
    program.given.array[:] = np.arange(256)
    program.stream.upload(program.rows, program.given, 4, target_offset=8, source_offset=100)
    program.stream.download(program.answer, program.rows, 2, target_offset=1, source_offset=9)
    program.stream.synchronize()
    assert program.answer.array[:4].tolist() == [UNINITIALISED, 101, 102, UNINITIALISED]


def test_buffers_begin_at_multiples_of_256(program: Program) -> None:
    assert all(program.device.allocate(size, "some").address % 256 == 0 for size in (0, 1, 255, 257))


def test_a_grid_with_a_zero_does_nothing(program: Program) -> None:
    program.upload()
    program.stream.launch(
        program.kernel, (0, 1, 1), (32, 1, 1), (program.batch(), ctypes.c_int32(1), ctypes.c_int32(0))
    )
    program.download()
    program.stream.synchronize()
    assert program.ints() == [5]


def test_arguments_are_copied_when_queued(program: Program) -> None:
    batch, value = program.batch(), ctypes.c_int32(1)
    program.upload()
    program.stream.launch(program.kernel, (2, 1, 1), (32, 1, 1), (batch, value, ctypes.c_int32(0)))
    batch.max_best, value.value = 0, 99
    program.download()
    program.stream.synchronize()
    assert program.ints() == [6]


def test_a_download_is_poison_until_it_is_waited_for(program: Program) -> None:
    program.upload()
    program.download()
    assert set(program.answer.array.tolist()) == {UNDELIVERED}
    program.stream.synchronize()
    assert program.ints() == [5]


def test_a_graph_does_again_what_was_captured(program: Program) -> None:
    program.upload()
    with program.stream.capture() as capture:
        program.add(1)
        program.download()
    for _ in range(2):
        capture.graph.launch(program.stream)
        program.stream.synchronize()
    assert program.ints() == [7]
    capture.graph.free()
    program.end()


def test_a_graph_reads_what_lies_at_its_addresses_when_it_runs(program: Program) -> None:
    with program.stream.capture() as capture:
        program.upload()
        program.download()
    program.given.array.view(np.int32)[:] = 8
    capture.graph.launch(program.stream)
    program.stream.synchronize()
    assert program.ints() == [8]


def test_launches_of_one_graph_follow_each_other_on_all_streams(program: Program) -> None:
    other = program.device.create_stream()
    program.stream.clear(program.rows, 256)
    with program.stream.capture() as capture:
        program.add(1)
    capture.graph.launch(program.stream)
    capture.graph.launch(other)
    program.download(other)
    other.synchronize()
    assert program.ints() == [2]


def test_timed_events_tell_the_time_between_them(program: Program) -> None:
    start, end = (program.device.create_event(timed=True) for _ in range(2))
    program.stream.record(start)
    program.upload()
    program.stream.record(end)
    end.synchronize()
    assert end.milliseconds_since(start) > 0


def test_a_fake_network_computes_when_its_turn_comes(program: Program) -> None:
    device, address = program.device, program.rows.address

    def double() -> None:
        device.array(address, (64,), np.int32)[:] *= 2

    program.upload()
    device.stream(program.stream.handle).call(double, uses=(address,))
    program.add(1)
    program.download()
    program.stream.synchronize()
    assert program.ints() == [11]


def test_two_threads_with_a_stream_each_do_not_disturb_each_other(emulator: Emulator) -> None:
    program = make(1, emulator)
    sums: list[int] = []

    def work() -> None:
        program.device.use()
        stream, event = program.device.create_stream(), program.device.create_event()
        rows, pinned = program.device.allocate(256, "own"), program.device.allocate_pinned(256, "own")
        for round_ in range(5):
            pinned.array[:] = round_
            stream.upload(rows, pinned, 256)
            stream.record(event)
            event.synchronize()
            stream.download(pinned, rows, 256)
            stream.record(event)
            event.synchronize()
            sums.append(int(pinned.array.sum(dtype=np.int64)))
        rows.free()
        pinned.free()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums) == sorted([256 * round_ for round_ in range(5)] * 3)
    program.end()


def use_freed(program: Program) -> None:
    program.rows.free()
    program.upload()


def give_a_kernel_freed_memory(program: Program) -> None:
    batch = program.batch()
    program.rows.free()
    program.stream.launch(program.kernel, (2, 1, 1), (32, 1, 1), (batch, ctypes.c_int32(1), ctypes.c_int32(0)))


def give_a_kernel_any_address(program: Program) -> None:
    batch = program.batch()
    batch.bias_1[3] = 12345
    program.stream.launch(program.kernel, (2, 1, 1), (32, 1, 1), (batch, ctypes.c_int32(1), ctypes.c_int32(0)))


def free_twice(program: Program) -> None:
    program.rows.free()
    program.rows.free()


def free_pinned_twice(program: Program) -> None:
    program.given.free()
    program.given.free()


def read_freed_pinned(program: Program) -> None:
    program.given.free()
    program.given.array.sum()


def ask_the_address_of_freed(program: Program) -> None:
    program.rows.free()
    _ = program.rows.address


def free_what_is_queued(program: Program) -> None:
    program.add(1)
    program.rows.free()


def free_pinned_that_is_queued(program: Program) -> None:
    program.upload()
    program.given.free()


def free_after_waiting_for_another_stream(program: Program) -> None:
    other = program.device.create_stream()
    program.add(1)
    other.clear(program.device.allocate(4, "other"), 4)
    other.synchronize()
    program.rows.free()


def upload_beyond_the_buffer(program: Program) -> None:
    program.stream.upload(program.rows, program.given, 256, target_offset=1)


def upload_beyond_the_source(program: Program) -> None:
    program.stream.upload(program.rows, program.given, 200, source_offset=57)


def download_beyond_the_buffer(program: Program) -> None:
    program.stream.download(program.answer, program.rows, 4, source_offset=-1)


def clear_beyond_the_buffer(program: Program) -> None:
    program.stream.clear(program.rows, 257)


def overwrite_an_upload(program: Program) -> None:
    program.upload()
    program.given.array[255] += 1
    program.stream.synchronize()


def overwrite_an_upload_after_waiting_for_what_came_before(program: Program) -> None:
    event = program.device.create_event()
    program.stream.record(event)
    program.upload()
    event.synchronize()
    program.given.array[:] = 1
    program.stream.synchronize()


def write_where_a_download_will_be(program: Program) -> None:
    program.upload()
    program.download()
    program.answer.array[0] = 0
    program.stream.synchronize()


def download_over_a_download(program: Program) -> None:
    program.download()
    program.download()


def upload_what_is_still_being_downloaded(program: Program) -> None:
    program.download()
    program.stream.upload(program.rows, program.answer, 4)


def wait_for_a_mark_that_is_nowhere(program: Program) -> None:
    program.stream.wait(program.device.create_event())


def synchronise_a_mark_that_is_nowhere(program: Program) -> None:
    program.device.create_event().synchronize()


def time_events_without_timing(program: Program) -> None:
    start, end = program.device.create_event(), program.device.create_event(timed=True)
    program.stream.record(start)
    program.stream.record(end)
    end.synchronize()
    end.milliseconds_since(start)


def time_events_not_yet_reached(program: Program) -> None:
    start, end = (program.device.create_event(timed=True) for _ in range(2))
    program.stream.record(start)
    program.stream.record(end)
    start.synchronize()
    end.milliseconds_since(start)


def synchronise_while_capturing(program: Program) -> None:
    with program.stream.capture():
        program.stream.synchronize()


def wait_for_another_stream_while_capturing(program: Program) -> None:
    event, other = program.device.create_event(), program.device.create_stream()
    other.record(event)
    with program.stream.capture():
        event.synchronize()


def allocate_while_capturing(program: Program) -> None:
    with program.stream.capture():
        program.device.allocate(4, "too late")


def load_while_capturing(program: Program) -> None:
    with program.stream.capture():
        program.device.load(b"")


def free_while_capturing(program: Program) -> None:
    with program.stream.capture():
        program.rows.free()


def take_the_graph_too_early(program: Program) -> None:
    with program.stream.capture() as capture:
        _ = capture.graph


def launch_a_graph_whose_memory_is_gone(program: Program) -> None:
    with program.stream.capture() as capture:
        program.add(1)
    program.rows.free()
    capture.graph.launch(program.stream)


def free_a_graph_that_is_queued(program: Program) -> None:
    with program.stream.capture() as capture:
        program.add(1)
    capture.graph.launch(program.stream)
    capture.graph.free()


def launch_a_freed_graph(program: Program) -> None:
    with program.stream.capture() as capture:
        program.add(1)
    capture.graph.free()
    capture.graph.launch(program.stream)


def free_a_graph_twice(program: Program) -> None:
    with program.stream.capture() as capture:
        program.add(1)
    capture.graph.free()
    capture.graph.free()


def replay_while_the_download_is_on_its_way(program: Program) -> None:
    with program.stream.capture() as capture:
        program.download()
    capture.graph.launch(program.stream)
    capture.graph.launch(program.stream)


def launch_too_many_threads(program: Program) -> None:
    arguments = (program.batch(), ctypes.c_int32(1), ctypes.c_int32(0))
    program.stream.launch(program.kernel, (1, 1, 1), (2048, 1, 1), arguments)


def launch_too_high_a_grid(program: Program) -> None:
    arguments = (program.batch(), ctypes.c_int32(1), ctypes.c_int32(0))
    program.stream.launch(program.kernel, (1, 65_536, 1), (32, 1, 1), arguments)


def launch_with_an_argument_too_few(program: Program) -> None:
    arguments = (program.batch(), ctypes.c_int32(1))
    program.stream.launch(program.kernel, (1, 1, 1), (32, 1, 1), arguments)


def launch_with_too_much_shared_memory(program: Program) -> None:
    arguments = (program.batch(), ctypes.c_int32(1), ctypes.c_int32(0))
    program.stream.launch(program.kernel, (1, 1, 1), (32, 1, 1), arguments, shared_bytes=65_537)


def use_anothers_buffer(program: Program) -> None:
    program.stream.clear(FakeDevice().allocate(4, "not ours"), 4)


def look_at_device_memory(program: Program) -> None:
    program.device.array(program.rows.address, (4,), np.uint8)


def let_a_network_look_beyond_its_buffer(program: Program) -> None:
    address = program.rows.address
    stream = program.device.stream(program.stream.handle)
    stream.call(lambda: program.device.array(address, (65,), np.float32).fill(0))
    program.stream.synchronize()


def leak_memory(program: Program) -> None:
    program.given.free()
    program.answer.free()
    program.device.close()


def leak_a_graph(program: Program) -> None:
    with program.stream.capture():
        program.upload()
    program.end()


BREACHES: list[tuple[Callable[[Program], None], type[Breach]]] = [
    (use_freed, UseAfterFree),
    (give_a_kernel_freed_memory, UseAfterFree),
    (give_a_kernel_any_address, OutOfBounds),
    (free_twice, DoubleFree),
    (free_pinned_twice, DoubleFree),
    (read_freed_pinned, UseAfterFree),
    (ask_the_address_of_freed, UseAfterFree),
    (free_what_is_queued, FreedWhileQueued),
    (free_pinned_that_is_queued, FreedWhileQueued),
    (free_after_waiting_for_another_stream, FreedWhileQueued),
    (upload_beyond_the_buffer, OutOfBounds),
    (upload_beyond_the_source, OutOfBounds),
    (download_beyond_the_buffer, OutOfBounds),
    (clear_beyond_the_buffer, OutOfBounds),
    (overwrite_an_upload, PinnedRace),
    (overwrite_an_upload_after_waiting_for_what_came_before, PinnedRace),
    (write_where_a_download_will_be, PinnedRace),
    (download_over_a_download, PinnedRace),
    (upload_what_is_still_being_downloaded, PinnedRace),
    (wait_for_a_mark_that_is_nowhere, NotRecorded),
    (synchronise_a_mark_that_is_nowhere, NotRecorded),
    (time_events_without_timing, NotTimed),
    (time_events_not_yet_reached, NotTimed),
    (synchronise_while_capturing, CaptureBroken),
    (wait_for_another_stream_while_capturing, CaptureBroken),
    (allocate_while_capturing, CaptureBroken),
    (load_while_capturing, CaptureBroken),
    (free_while_capturing, CaptureBroken),
    (take_the_graph_too_early, CaptureBroken),
    (launch_a_graph_whose_memory_is_gone, UseAfterFree),
    (free_a_graph_that_is_queued, FreedWhileQueued),
    (launch_a_freed_graph, UseAfterFree),
    (free_a_graph_twice, DoubleFree),
    (replay_while_the_download_is_on_its_way, PinnedRace),
    (launch_too_many_threads, WrongLaunch),
    (launch_too_high_a_grid, WrongLaunch),
    (launch_with_an_argument_too_few, WrongLaunch),
    (launch_with_too_much_shared_memory, WrongLaunch),
    (use_anothers_buffer, Foreign),
    (look_at_device_memory, TouchedByHost),
    (let_a_network_look_beyond_its_buffer, OutOfBounds),
    (leak_memory, Leaked),
    (leak_a_graph, Leaked),
]


@pytest.mark.parametrize(("breach", "error"), BREACHES, ids=[breach.__name__ for breach, _ in BREACHES])
def test_a_breach_is_found_whatever_the_order(
    breach: Callable[[Program], None], error: type[Breach], emulator: Emulator
) -> None:
    for seed in SEEDS:
        with pytest.raises(Breach) as found:
            breach(make(seed, emulator))
        assert type(found.value) is error


def test_a_breach_that_was_swallowed_comes_up_at_the_end(program: Program) -> None:
    with pytest.raises(OutOfBounds):
        program.stream.clear(program.rows, 257)
    with pytest.raises(OutOfBounds):
        program.end()


def test_a_thread_must_say_that_it_uses_the_device(program: Program) -> None:
    found: list[BaseException] = []

    def work() -> None:
        try:
            program.upload()
        except WrongThread as breach:
            found.append(breach)

    thread = threading.Thread(target=work, name="stranger")
    thread.start()
    thread.join()
    assert [str(breach) for breach in found] == ["Stream.upload from stranger"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kernel_that_writes_beside_its_buffer_is_found(
    seed: int, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(
        "SOLO_SANITIZE", raising=False
    )  # AddressSanitizer would end the process, as test_emulator.py shows
    program = make(seed, emulator)
    program.add(1, at=1)
    with pytest.raises(OutOfBounds, match="behind rows"):
        program.stream.synchronize()


def test_freed_memory_stays_poison_and_writing_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOLO_SANITIZE", raising=False)
    block = Block(16, "gone", 0)
    block.free()
    view = array_at(block.address, (16,), np.uint8)
    assert set(view.tolist()) == {FREED}
    view[3] = 1
    with pytest.raises(WrittenAfterFree):
        block.release()


def test_the_allocation_asked_for_fails_and_the_next_does_not(program: Program) -> None:
    program.device.fail_allocation(2)
    program.device.allocate(1, "first").free()
    with pytest.raises(DeviceOutOfMemory, match="second"):
        program.device.allocate_pinned(1, "second")
    program.device.allocate(1, "third").free()
    program.end()


def test_memory_has_an_end(emulator: Emulator) -> None:
    device = FakeDevice(memory_bytes=1000, emulator=emulator)
    first = device.allocate(600, "first")
    with pytest.raises(DeviceOutOfMemory):
        device.allocate(600, "second")
    first.free()
    device.allocate(600, "second").free()
    device.close()


def test_the_launch_asked_for_fails_and_the_next_does_not(program: Program) -> None:
    program.upload()
    program.device.fail_launch("add", 2)
    program.add(1)
    with pytest.raises(DeviceFailure, match="add"):
        program.add(1)
    program.add(1)
    program.download()
    program.stream.synchronize()
    assert program.ints() == [7]
    program.end()


@pytest.mark.parametrize("after", range(2))
def test_a_lost_device_is_told_by_waiting_and_by_every_call_from_then_on(program: Program, after: int) -> None:
    program.device.lose(after)

    def go_on() -> None:
        program.upload()
        program.download()
        program.stream.synchronize()

    with pytest.raises(DeviceLost):
        go_on()
    for call in (program.upload, program.rows.free, program.device.create_event, program.stream.synchronize):
        with pytest.raises(DeviceLost):
            call()
    program.device.close()


def test_there_is_no_kernel_of_an_unknown_name(program: Program) -> None:
    with pytest.raises(DeviceFailure, match="subtract"):
        program.device.load(b"").kernel("subtract")


def test_a_block_with_more_registers_than_there_are_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.gpu.fake_device._costs", lambda: {"count_runs": (72, 0)})
    device = FakeDevice(
        emulator=Emulator(source="""extern "C" __global__ void count_runs(const Batch b) { (void)b; }""")
    )
    kernel, stream = device.load(b"").kernel("count_runs"), device.create_stream()
    stream.launch(kernel, (1, 1, 1), (256, 1, 1), (Batch(),))
    with pytest.raises(WrongLaunch, match="1024 threads of 72 registers"):
        stream.launch(kernel, (1, 1, 1), (1024, 1, 1), (Batch(),))
