"""A backend on the fake device, from images to instances: they are the CPU's, also after failures, and nothing leaks."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from solo_models.bundle import Bundle
from solo_models.spec import PreprocessSpec, Variant
from solo_server.backends.gpu.backend import DeviceBackend
from solo_server.backends.gpu.network import BatchShape, level_groups
from solo_server.backends.gpu.postprocess.run import CudaPostprocessor
from solo_server.backends.gpu.tensorrt.network import TensorRtNetwork
from solo_server.backends.stopwatch import Stopwatch
from solo_server.errors import DeviceFailure, DeviceLost, DeviceOutOfMemory, EngineFailure
from solo_server.types import Instance, Query
from support.gpu.cpu_reference import SMALL_LIMITS, check_same, cpu_backend, segment
from support.gpu.fake_device import FakeDevice
from support.gpu.fake_tensorrt import FakeTensorRt
from support.gpu.small_network import images, small_bundle, small_engines, small_profiles
from support.specs import VARIANTS

QUERIES = (
    Query(),
    Query(score_threshold=0.3),
    Query(class_ids=(1,)),
    Query(nms="mask", max_instances=7),
    Query(nms="none"),
)


@dataclass
class Opened:
    """A backend with the fakes that it stands on."""

    device: FakeDevice
    trt: FakeTensorRt
    backend: DeviceBackend


def make(bundle: Bundle, device: FakeDevice, slots: int = 2, max_batch: int = 3) -> Opened:
    trt = FakeTensorRt(device)
    network = TensorRtNetwork(trt, device, small_engines(bundle, small_profiles(bundle, max_batch)), slots=slots)
    postprocessor = CudaPostprocessor(device, (bundle.spec, bundle.kernels), b"", network.shapes, SMALL_LIMITS)
    return Opened(device, trt, DeviceBackend(device, bundle.spec, network, postprocessor))


@contextmanager
def opened(bundle: Bundle, seed: int = 0, **options: int) -> Iterator[Opened]:
    device = FakeDevice(seed)
    place = make(bundle, device, **options)
    yield place
    place.backend.close()
    device.close()


@pytest.mark.parametrize("variant", VARIANTS)
def test_instances_are_those_of_the_cpu(variant: Variant) -> None:
    bundle = small_bundle(variant)
    with opened(bundle, seed=1, slots=1) as place:
        count = 0
        for hw, queries in (((64, 96), QUERIES[:3]), ((90, 61), QUERIES[3:]), ((31, 33), QUERIES[:1])):
            batch = images(bundle.spec, hw, len(queries))
            found, right = segment(place.backend, batch, queries), segment(cpu_backend(variant), batch, queries)
            for one, other in zip(found, right, strict=True):
                check_same(one, other)
                count += len(one)
        assert count > 30


@pytest.mark.parametrize("seed", range(5))
def test_two_batches_at_once_do_not_meet(seed: int) -> None:
    bundle = small_bundle()
    batches = [
        (images(bundle.spec, hw, 1, seed=10 * n), QUERIES[n : n + 1]) for n, hw in enumerate(((64, 96), (31, 33)))
    ]
    right = [segment(cpu_backend("solo"), *batch)[0] for batch in batches]
    with opened(bundle, seed=seed) as place, ThreadPoolExecutor(2) as threads:
        first_wait = threading.Barrier(2)

        def work(mine: int) -> list[tuple[Instance, ...]]:
            first_wait.wait()
            return [segment(place.backend, *batches[mine])[0] for _ in range(3)]  # plain, captured, replayed

        for expected, answers in zip(right, threads.map(work, range(2)), strict=True):
            for found in answers:
                check_same(found, expected)
        assert len(place.trt.scratch_streams) == 2


def test_replayed_graphs_give_the_same_answers() -> None:
    bundle = small_bundle()
    batch = images(bundle.spec, (64, 96), 2)
    with opened(bundle, slots=1) as place:
        answers = [segment(place.backend, batch, QUERIES[:2]) for _ in range(3)]  # plain, captured, replayed
        assert len(place.device.graphs) == 4
        assert all(answer == answers[0] for answer in answers)


def test_nothing_found_runs_no_mask_towers() -> None:
    bundle = small_bundle()
    with opened(bundle, slots=1) as place:
        answer = segment(place.backend, images(bundle.spec, (64, 96), 2), [Query(score_threshold=1.0)] * 2)
        assert answer == [(), ()]
        assert [name for name, _ in place.trt.enqueued] == ["images"]


def test_only_groups_with_candidates_are_run() -> None:
    bundle = small_bundle()
    batch = images(bundle.spec, (64, 96), 1)
    scores = cpu_backend("solo").infer(batch, [Query()])[0].scores
    second, best = np.sort(scores.max(1))[-2:]
    cell = int(scores.max(1).argmax())
    level = int(np.searchsorted(bundle.spec.first_cells, cell, side="right")) - 1
    group = next(group for group in level_groups(bundle.spec) if level in group.levels)
    with opened(bundle, slots=1) as place:
        place.backend.infer(batch, [Query(score_threshold=float(second + best) / 2)])
        (run,) = [shape for name, shape in place.trt.enqueued if name == "level"]
        assert run == (len(group.levels), 64, 64 // group.stride, 96 // group.stride)


@pytest.mark.parametrize(("number", "hw"), [(1, (64, 96)), (2, (64, 64)), (3, (32, 96)), (4, (96, 64))])
def test_a_failed_run_fails_one_batch_and_the_next_is_answered(number: int, hw: tuple[int, int]) -> None:
    bundle = small_bundle()
    batch, other = images(bundle.spec, hw, 1), images(bundle.spec, hw, 1, seed=50)
    (right,) = segment(cpu_backend("solo"), other, [Query()])
    with opened(bundle, seed=number, slots=1) as place:
        place.trt.fail("enqueue", number)
        with pytest.raises(DeviceFailure, match="says the fake"):
            place.backend.infer(batch, [Query()])
        assert not place.backend.is_lost
        check_same(segment(place.backend, other, [Query()])[0], right)


@pytest.mark.parametrize("kernel", ["count_candidates", "project", "select_top", "relief", "write_runs"])
def test_a_kernel_that_cannot_be_launched_fails_one_batch(kernel: str) -> None:
    bundle = small_bundle()
    batch = images(bundle.spec, (64, 96), 1)
    (right,) = segment(cpu_backend("solo"), batch, [Query()])
    with opened(bundle, seed=4, slots=1) as place:
        place.device.fail_launch(kernel)
        with pytest.raises(DeviceFailure, match=kernel):
            place.backend.infer(batch, [Query()])
        check_same(segment(place.backend, batch, [Query()])[0], right)


def test_an_image_that_is_too_large_fails_its_batch_only() -> None:
    bundle = small_bundle()
    batch = images(bundle.spec, (400, 600), 1)
    with opened(bundle, slots=1) as place:
        with pytest.raises(EngineFailure, match="max_side=512"):
            place.backend.infer(batch, [Query()])
        assert place.backend.infer(images(bundle.spec, (64, 96), 1), [Query()])


def test_memory_that_runs_out_anywhere_leaves_nothing() -> None:
    bundle = small_bundle()
    problems: list[str] = []
    while (problem := _out_of_memory_at(bundle, len(problems) + 1)) is not None:
        problems.append(problem)
    assert len(problems) > 60
    assert all(" bytes" in problem for problem in problems)
    in_slots = ["lower max batch (now 1) or slots (now 2)" in problem for problem in problems]
    assert in_slots == [False] * 2 + [True] * (len(problems) - 2)  # the first two: mask kernels, which all slots share


def _out_of_memory_at(bundle: Bundle, number: int) -> str | None:
    """The error where the n-th allocation fails; `None` if there are fewer. The device raises what has leaked."""
    device = FakeDevice()
    device.fail_allocation(number)
    try:
        make(bundle, device, max_batch=1).backend.close()
    except DeviceOutOfMemory as problem:
        return str(problem)
    finally:
        device.close()
    return None


def test_a_gpu_that_is_too_small_is_reported_with_the_allocation() -> None:
    device = FakeDevice(memory_bytes=2 << 20)
    with pytest.raises(
        DeviceOutOfMemory, match=r"\w+, \d+ bytes: .*, for slot 1 of 2, on .* with 2 MiB; lower max batch"
    ):
        make(small_bundle(), device)
    device.close()


@pytest.mark.parametrize("after", [0, 4, 12, 20])
def test_a_lost_device_refuses_all_further_batches(after: int) -> None:
    bundle, device = small_bundle(), FakeDevice(after)
    place = make(bundle, device)
    batch = images(bundle.spec, (64, 96), 1)
    place.backend.infer(batch, [Query()])
    device.lose(after)
    with pytest.raises(DeviceLost):
        place.backend.infer(batch, [Query()])
    assert place.backend.is_lost
    launches = device.launches.total()
    with pytest.raises(DeviceLost, match="no batch can succeed any more"):
        place.backend.infer(batch, [Query()])
    assert device.launches.total() == launches
    place.backend.close()
    device.close()


def test_a_thread_that_waits_for_a_slot_is_woken_when_the_device_is_lost() -> None:
    bundle, device = small_bundle(), FakeDevice()
    place = make(bundle, device, slots=1)
    busy, waiting = threading.Event(), threading.Event()

    def lose(slot: object) -> None:
        busy.set()
        waiting.wait()
        raise DeviceLost("CUDA_ERROR_LAUNCH_FAILED")

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(place.backend._on_slot, lose)
        busy.wait()
        second = threads.submit(place.backend.infer, images(bundle.spec, (64, 96), 1), [Query()])
        waiting.set()
        for lost in (first, second):
            with pytest.raises(DeviceLost):
                lost.result(10)


def test_impossible_batches_are_refused() -> None:
    bundle = small_bundle()
    wide, tall = images(bundle.spec, (64, 96), 4), images(bundle.spec, (96, 64), 1)
    with opened(bundle, slots=1) as place:
        for batch, queries, message in (
            (wide[:1] + tall, 2, "must have one padded size, have 64x96, 96x64"),
            ([], 0, "must have one padded size, have none"),
            (wide, 4, "4 in one batch; at most 3"),
            (wide[:2], 1, "queries: 1 for 2 images"),
        ):
            with pytest.raises(ValueError, match=message):
                place.backend.infer(batch, [Query()] * queries)
        large = images(replace(bundle.spec, preprocess=PreprocessSpec(160, 128)), (128, 160), 1)
        with pytest.raises(
            EngineFailure, match=r"160x128:landscape \(padded\); the network accepts at most 96x64:landscape or"
        ):
            place.backend.infer(large, [Query()])
        assert not place.trt.enqueued


def test_warm_slots_capture_nothing_when_the_first_images_come() -> None:
    bundle = small_bundle()
    (blank,) = images(bundle.spec, (64, 96), 1)
    with opened(bundle) as place:
        place.backend.warm_up(blank)
        runs = len(place.trt.enqueued)
        for _ in range(2):
            segment(place.backend, [blank], [Query()])
            segment(place.backend, [blank] * 3, [Query()] * 3)
        assert len(place.trt.enqueued) == runs


def test_a_closed_backend_refuses_and_can_be_closed_again() -> None:
    bundle = small_bundle()
    with opened(bundle) as place:
        place.backend.close()
        with pytest.raises(EngineFailure, match="closed"):
            place.backend.infer(images(bundle.spec, (64, 96), 1), [Query()])


def test_closing_waits_for_the_batch_under_way() -> None:
    bundle = small_bundle()
    (right,) = segment(cpu_backend("solo"), batch := images(bundle.spec, (64, 96), 1), [Query()])
    with opened(bundle, slots=1) as place, ThreadPoolExecutor(2) as threads:
        busy, go = threading.Event(), threading.Event()

        def slow(slot: Any) -> Any:
            busy.set()
            go.wait()
            return slot.run(BatchShape(1, (64, 96)), batch, [Query()])

        running = threads.submit(place.backend._on_slot, slow)
        busy.wait()
        closing = threads.submit(place.backend.close)
        go.set()
        closing.result(60)
        check_same(place.backend.finish(running.result()[0], batch[0].geometry, Query(), Stopwatch()), right)


def test_closing_does_not_wait_for_a_batch_that_hangs_on_a_lost_device() -> None:
    bundle, device = small_bundle(), FakeDevice()
    place = make(bundle, device, slots=2)
    busy, go = threading.Event(), threading.Event()

    def hang(slot: object) -> None:
        busy.set()
        go.wait()

    def lose(slot: object) -> None:
        raise DeviceLost("CUDA_ERROR_LAUNCH_FAILED")

    with ThreadPoolExecutor(3) as threads:
        hanging = threads.submit(place.backend._on_slot, hang)
        try:
            busy.wait()
            with pytest.raises(DeviceLost):
                threads.submit(place.backend._on_slot, lose).result(10)
            threads.submit(place.backend.close).result(10)
            assert not hanging.done()
        finally:
            go.set()
