"""The batcher: idle engines never wait, a batch has one padded size, no image starves, and only faulty images fail."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from solo_server.errors import DeadlineExceeded, DeviceLost, EngineFailure, EngineHung, ServerError
from solo_server.service.batching import Batcher, BatchRules, Inferred

SMALL, WIDE, TALL = (32, 32), (32, 64), (64, 32)


pytestmark = pytest.mark.anyio


class FakeEngine:
    """Batches wait until the test answers them; an image is its number and its padded size."""

    def __init__(self, **rules: Any) -> None:
        self.batches: list[list[int]] = []
        self.ended: list[ServerError] = []
        self._answers: list[asyncio.Future[None]] = []
        self.batcher = Batcher(self._infer, BatchRules(**rules), self.ended.append)

    async def _infer(self, images: Sequence[tuple[int, tuple[int, int]]]) -> Sequence[Any]:
        assert len({padded_hw for _, padded_hw in images}) == 1
        numbers = [number for number, _ in images]
        self.batches.append(numbers)
        self._answers.append(asyncio.get_running_loop().create_future())
        await self._answers[-1]
        return [f"output {number}" for number in numbers]

    def submit(self, number: int, padded_hw: tuple[int, int] = SMALL, **options: Any) -> asyncio.Task[Inferred]:
        """Hand in an image."""
        return asyncio.create_task(self.batcher.infer((number, padded_hw), padded_hw, **options))

    async def answer(self, batch: int) -> None:
        self._answers[batch].set_result(None)
        await settled()

    async def fail(self, batch: int, problem: Exception) -> None:
        self._answers[batch].set_exception(problem)
        await settled()


async def settled() -> None:
    """Let the event loop run until nothing more happens by itself."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_idle_engine_does_not_wait_for_a_batch_to_fill() -> None:
    engine = FakeEngine(max_batch=8)
    first = engine.submit(1)
    await settled()
    assert engine.batches == [[1]]
    await engine.answer(0)
    inferred = first.result()
    assert inferred.output == "output 1"
    assert inferred.queue_ms >= 0
    assert inferred.infer_ms > 0


async def test_a_batch_grows_up_to_its_limit_while_the_engine_is_busy() -> None:
    engine = FakeEngine(max_batch=3)
    tasks = [engine.submit(number) for number in range(1, 7)]
    await settled()
    assert engine.batches == [[1]]
    await engine.answer(0)
    assert engine.batches == [[1], [2, 3, 4]]
    await engine.answer(1)
    await engine.answer(2)
    assert engine.batches == [[1], [2, 3, 4], [5, 6]]
    assert [task.result().output for task in tasks] == [f"output {number}" for number in range(1, 7)]


async def test_the_bucket_whose_first_image_waits_longest_comes_first() -> None:
    engine = FakeEngine(max_batch=2)
    images = [(1, SMALL), (2, SMALL), (3, WIDE), (4, SMALL), (5, SMALL), (6, TALL), (7, WIDE)]
    tasks = []
    for number, padded_hw in images:
        tasks.append(engine.submit(number, padded_hw))
        await settled()
    for batch in range(5):
        await engine.answer(batch)
    assert engine.batches == [[1], [2, 4], [3, 7], [5], [6]]
    assert all(task.done() for task in tasks)


async def test_two_engines_work_at_the_same_time_and_either_takes_the_next_batch() -> None:
    engine = FakeEngine(max_concurrency=2, max_batch=2)
    tasks = [engine.submit(number) for number in range(1, 6)]
    await settled()
    assert engine.batches == [[1], [2]]
    await engine.answer(1)
    assert engine.batches == [[1], [2], [3, 4]]
    await engine.answer(2)
    await engine.answer(0)
    await engine.answer(3)
    assert engine.batches[3] == [5]
    assert [task.done() for task in tasks] == [True] * 5


async def test_an_image_whose_deadline_passed_while_it_waited_is_not_inferred() -> None:
    engine = FakeEngine(max_batch=4)
    engine.submit(1)
    late, other = engine.submit(2, deadline=0.0), engine.submit(3)
    await settled()
    await engine.answer(0)
    assert engine.batches == [[1], [3]]
    assert isinstance(late.exception(), DeadlineExceeded)
    await engine.answer(1)
    assert other.result().output == "output 3"


async def test_a_bucket_of_late_images_does_not_block_the_others() -> None:
    engine = FakeEngine()
    engine.submit(1)
    engine.submit(2, WIDE, deadline=0.0).add_done_callback(asyncio.Task.exception)
    engine.submit(3, TALL)
    await settled()
    await engine.answer(0)
    assert engine.batches == [[1], [3]]
    await engine.answer(1)


async def test_an_image_whose_caller_was_cancelled_is_not_inferred() -> None:
    engine = FakeEngine(max_batch=4)
    tasks = [engine.submit(1), engine.submit(2), engine.submit(3), engine.submit(4, WIDE)]
    await settled()
    tasks[1].cancel()
    tasks[3].cancel()
    await settled()
    assert engine.batcher.waiting == 1
    await engine.answer(0)
    assert engine.batches == [[1], [3]]
    await engine.answer(1)
    assert [task.cancelled() for task in tasks] == [False, True, False, True]


async def test_a_caller_cancelled_while_its_batch_runs_does_not_affect_the_others() -> None:
    engine = FakeEngine(max_batch=4)
    tasks = [engine.submit(1), engine.submit(2), engine.submit(3)]
    await settled()
    await engine.answer(0)
    tasks[1].cancel()
    await settled()
    await engine.fail(1, EngineFailure("both"))
    assert engine.batches == [[1], [2, 3], [3]]
    await engine.answer(2)
    assert tasks[2].result().output == "output 3"


async def test_only_the_faulty_image_of_a_failed_batch_fails() -> None:
    engine = FakeEngine(max_batch=3)
    tasks = [engine.submit(number) for number in range(1, 6)]
    await settled()
    await engine.answer(0)
    await engine.fail(1, EngineFailure("one of them"))
    await engine.answer(2)
    await engine.fail(3, EngineFailure("image 3"))
    await engine.answer(4)
    await engine.answer(5)
    assert engine.batches == [[1], [2, 3, 4], [2], [3], [4], [5]]
    failed = [task for task in tasks if task.exception() is not None]
    assert failed == [tasks[2]]
    assert str(tasks[2].exception()) == "image 3"


async def test_an_image_that_fails_alone_is_not_retried_and_the_engine_continues() -> None:
    engine = FakeEngine()
    bad, good = engine.submit(1), engine.submit(2)
    await settled()
    await engine.fail(0, ValueError("an internal error"))
    assert isinstance(bad.exception(), EngineFailure)
    assert "internal error" not in bad.exception().detail  # type: ignore[union-attr]  # it is one
    await engine.answer(1)
    assert engine.batches == [[1], [2]]
    assert good.result().output == "output 2"
    assert engine.ended == []


async def test_images_without_an_output_fail() -> None:
    async def no_outputs(_: Sequence[Any]) -> Sequence[Any]:
        return []

    engine = FakeEngine()
    engine.batcher._infer = no_outputs
    with pytest.raises(EngineFailure):
        await engine.submit(1)


async def test_after_a_lost_device_nothing_is_retried_and_everything_fails() -> None:
    engine = FakeEngine(max_batch=2)
    tasks = [engine.submit(number) for number in range(1, 5)]
    await settled()
    await engine.answer(0)
    lost = DeviceLost("CUDA_ERROR_ILLEGAL_ADDRESS")
    await engine.fail(1, lost)
    assert engine.batches == [[1], [2, 3]]
    assert [task.exception() for task in tasks[1:]] == [lost] * 3
    assert engine.ended == [lost]
    with pytest.raises(DeviceLost):
        await engine.submit(5)


async def test_a_device_lost_while_images_are_retried_one_by_one_ends_the_retries() -> None:
    engine = FakeEngine(max_batch=3)
    tasks = [engine.submit(number) for number in range(1, 5)]
    await settled()
    await engine.answer(0)
    await engine.fail(1, EngineFailure("one of them"))
    await engine.fail(2, DeviceLost("gone"))
    assert engine.batches == [[1], [2, 3, 4], [2]]
    assert [type(task.exception()) for task in tasks[1:]] == [DeviceLost] * 3


async def test_an_engine_that_hangs_is_reported_and_all_images_fail() -> None:
    engine = FakeEngine(engine_timeout_s=0.0)
    running, waiting = engine.submit(1), engine.submit(2)
    with pytest.raises(EngineHung) as caught:
        await running
    assert engine.ended == [caught.value]
    assert caught.value.reason == "stalled"
    with pytest.raises(EngineHung):
        await waiting
    with pytest.raises(EngineHung):
        await engine.submit(3)
    await engine.answer(0)  # too late: the answer is dropped
    assert engine.batches == [[1]]


async def test_the_time_of_a_queued_batch_counts_from_when_an_engine_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("solo_server.service.batching.monotonic", lambda: now)
    engine = FakeEngine(max_concurrency=1, ahead=1, engine_timeout_s=100)
    tasks = [engine.submit(number) for number in (1, 2, 3)]
    await settled()
    assert engine.batches == [[1], [2]]
    now = 40.0
    await engine.answer(0)
    assert engine.batches == [[1], [2], [3]]
    now = 80.0
    assert not engine.batcher.is_stalled  # for 80 seconds there was a call, but the second began at 40
    await engine.answer(1)
    now = 90.0
    await engine.answer(2)
    assert [(task.result().queue_ms, task.result().infer_ms) for task in tasks] == [
        (0, 40e3),
        (40e3, 40e3),
        (80e3, 10e3),
    ]


async def test_a_batch_queued_for_an_engine_that_hangs_fails() -> None:
    engine = FakeEngine(max_concurrency=1, ahead=1, engine_timeout_s=0.02)
    answers = await asyncio.gather(*(engine.submit(number) for number in (1, 2, 3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [EngineHung] * 3
    assert engine.batches == [[1], [2]]
    assert [type(problem) for problem in engine.ended] == [EngineHung]


async def test_either_of_two_engines_takes_the_queued_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("solo_server.service.batching.monotonic", lambda: now)
    engine = FakeEngine(max_concurrency=2, ahead=1)
    tasks = [engine.submit(number) for number in (1, 2, 3)]
    await settled()
    assert engine.batches == [[1], [2], [3]]
    now = 1.0
    await engine.answer(1)
    now = 3.0
    await engine.answer(2)
    await engine.answer(0)
    assert [(task.result().queue_ms, task.result().infer_ms) for task in tasks] == [(0, 3e3), (0, 1e3), (1e3, 2e3)]


async def test_a_batch_that_takes_long_counts_as_stalled_before_it_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("solo_server.service.batching.monotonic", lambda: now[0])
    engine = FakeEngine(engine_timeout_s=100)
    engine.submit(1)
    await settled()
    now[0] += 49
    assert not engine.batcher.is_stalled
    now[0] += 2
    assert engine.batcher.is_stalled
    await engine.answer(0)
    assert not engine.batcher.is_stalled
    assert engine.ended == []


async def test_with_a_delay_an_idle_engine_waits_for_a_full_batch() -> None:
    engine = FakeEngine(max_batch=2, max_delay_s=3600)
    tasks = [engine.submit(1)]
    await settled()
    assert engine.batches == []
    tasks += [engine.submit(2, WIDE), engine.submit(3)]
    await settled()
    assert engine.batches == [[1, 3]]
    await engine.answer(0)
    assert [task.done() for task in tasks] == [True, False, True]
    tasks[1].cancel()
    await settled()
    assert engine.batcher.waiting == 0


async def test_with_a_delay_a_single_image_is_inferred_when_it_is_over() -> None:
    engine = FakeEngine(max_batch=2, max_delay_s=0.005)
    task = engine.submit(1)
    await settled()
    while not engine.batches:
        await asyncio.sleep(0)
    await engine.answer(0)
    assert task.result().queue_ms >= 5
