"""The service keeps work off the event loop, limits how much waits, and answers everything that it has accepted."""

import asyncio
import random
import struct
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from solo_server.backends.cpu.encode import encode_mask
from solo_server.errors import (
    DeadlineExceeded,
    EngineFailure,
    EngineHung,
    ImageDamaged,
    NotReady,
    Overloaded,
    ServerError,
)
from solo_server.observability.observer import NO_STAGES
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import ModelSource, model_repository, single_model
from solo_server.service.service import Service
from solo_server.settings import Settings
from solo_server.system.cores import cores
from solo_server.types import ImageResult, Query
from support.bundles import quick_bundle
from support.gated_backend import Gate, Gated
from support.images import encoded, smooth_image

BODY = encoded(smooth_image(90, 120), "JPEG")
SLOW_HEADER = encoded(smooth_image(90, 120), "WEBP")
"""An image whose header `peek_size` does not read."""
PIXELS = 90 * 120


class Recorder:
    """An observer that records all calls."""

    def __init__(self) -> None:
        self.refusals: list[tuple[str, str]] = []
        self.outcomes: list[str] = []
        self.batches: list[int] = []
        self.stages: list[str] = []
        self.most_waiting = (0, 0)
        self.now_waiting = (0, 0)

    def refused(self, code: str, reason: str) -> None:
        self.refusals.append((code, reason))

    def waiting(self, images: int, pixels: int) -> None:
        self.now_waiting = (images, pixels)
        self.most_waiting = max(self.most_waiting, self.now_waiting)

    def batched(self, model: str, images: int, infer_ms: float) -> None:
        self.batches.append(images)

    def answered(
        self, model: str, outcome: str, total_ms: float, instances: int = 0, stages_ms: Mapping[str, float] = NO_STAGES
    ) -> None:
        self.outcomes.append(outcome)
        self.stages.extend(stages_ms)


@pytest.fixture(params=["staged", "to completion"], autouse=True)
def execution(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way in which images are executed, independent of the cores of this machine."""
    monkeypatch.setattr(
        "solo_server.service.served_model.runs_to_completion", lambda *_: request.param == "to completion"
    )
    return str(request.param)


@pytest.fixture(scope="module")
def solo_bundle() -> Path:
    return quick_bundle()


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def variant_pipeline(bundle_path: Path) -> Pipeline:
    """A pipeline of each variant of SOLO; a service that stops does not end it."""
    return Pipeline.open(bundle_path, threads=1)


@pytest.fixture
def gate(pipeline: Pipeline) -> Gate:
    return Gate(pipeline)


async def started(pipeline: Pipeline, settings: Settings | None = None, **options: Any) -> Service:
    service = Service(single_model(pipeline), settings, **options)
    await service.start()
    return service


async def settled(is_so: Callable[[], bool]) -> None:
    """Wait until the threads have reached a state."""
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.001)


def test_each_stage_runs_in_its_own_threads_unless_images_run_to_completion(
    solo_bundle: Path, execution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline.open(solo_bundle, threads=1)
    ran: dict[str, set[str]] = {}

    def watched(stage: str) -> Any:
        run = getattr(pipeline, stage)

        def call(*arguments: Any, **options: Any) -> Any:
            ran.setdefault(stage, set()).add(threading.current_thread().name)
            return run(*arguments, **options)

        return call

    for stage in ("pixels", "decode", "infer", "finish"):
        monkeypatch.setattr(pipeline, stage, watched(stage))

    async def scenario() -> None:
        service = await started(pipeline)
        results = await asyncio.gather(*(service.segment(SLOW_HEADER, Query()) for _ in range(8)))
        assert len({len(result.instances) for result in results}) == 1
        service.stop()

    asyncio.run(scenario())
    numbers = range(cores())
    assert ran["pixels"] == {"solo-header_0"}
    assert ran["infer"] == {"solo-engine_0"}
    if execution == "to completion":
        assert ran["decode"] == ran["finish"] == ran["infer"]
    else:
        assert ran["decode"] <= {f"solo-decode_{core}" for core in numbers}
        assert ran["finish"] <= {f"solo-finish_{core}" for core in numbers}


@pytest.mark.parametrize("execution", ["staged"], indirect=True)
@pytest.mark.parametrize("seed", range(2))
def test_an_images_result_is_the_same_alone_and_in_any_batch(variant_pipeline: Pipeline, seed: int) -> None:
    pipeline, rng = variant_pipeline, random.Random(seed)  # noqa: S311  # no secret
    sizes = [(90, 120), (90, 120), (120, 90), (60, 130), (128, 128)]
    bodies = [encoded(smooth_image(*rng.choice(sizes), seed=number)) for number in range(10)]
    queries = [Query(rng.choice([0.05, 0.2]), rng.choice([None, 5]), None, rng.choice([None, "mask"])) for _ in bodies]
    alone = [pipeline.segment(body, query) for body, query in zip(bodies, queries, strict=True)]
    recorder = Recorder()

    async def scenario() -> list[ImageResult]:
        service = await started(pipeline, Settings(max_batch=4), observer=recorder)
        answers = [service.segment(body, query) for body, query in zip(bodies, queries, strict=True)]
        results = await asyncio.gather(*answers)
        service.stop()
        return results

    together = asyncio.run(scenario())
    assert [result.instances for result in together] == [result.instances for result in alone]
    assert sum(recorder.batches) == len(bodies)
    assert max(recorder.batches) > 1
    assert sum(len(result.instances) for result in alone) > 0


@pytest.mark.parametrize("execution", ["staged"], indirect=True)
def test_one_poisonous_image_of_a_batch_fails_alone(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    poison, infer, sizes = Query(max_instances=13), gate.pipeline.infer, list[int]()

    def poisoned(images: Sequence[Any], queries: Sequence[Query]) -> Any:
        sizes.append(len(images))
        if poison in queries:
            gate.open.wait(30)
            raise EngineFailure("the runtime cannot do this one")
        return infer(images, queries)

    monkeypatch.setattr(gate.pipeline, "infer", poisoned)

    async def scenario() -> None:
        service = await started(gate.pipeline, Settings(max_batch=8))
        first = asyncio.create_task(service.segment(BODY, Query()))
        await gate.taken_one()
        queries = [Query(), poison, Query(), Query()]
        tasks = [asyncio.create_task(service.segment(BODY, query)) for query in queries]
        await settled(lambda: service.models.find().batcher.waiting == 4)
        gate.open.set()
        answers = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [*[ImageResult] * 2, EngineFailure, *[ImageResult] * 2]
        assert sizes == [1, 4, 1, 1, 1, 1]
        service.stop()

    asyncio.run(scenario())


def test_an_image_over_the_count_limit_is_refused_at_once_with_a_retry_after(gate: Gate) -> None:
    async def scenario() -> None:
        recorder = Recorder()
        service = await started(gate.pipeline, Settings(max_waiting=2), observer=recorder)
        accepted = [asyncio.create_task(service.segment(BODY, Query())) for _ in range(2)]
        await gate.taken_one()
        with pytest.raises(Overloaded) as caught:
            await service.segment(b"not read", Query())
        assert (caught.value.reason, caught.value.retry_after_s) == ("queue_full", 1)
        assert recorder.refusals == [("overloaded", "queue_full")]
        gate.open.set()
        assert len(await asyncio.gather(*accepted)) == 2
        assert (await service.segment(BODY, Query())).instances
        service.stop()
        assert recorder.now_waiting == (0, 0)
        assert recorder.outcomes == ["ok"] * 3
        assert {"queue", "decode", "preprocess", "categories", "encode", "answer"} <= set(recorder.stages)

    asyncio.run(scenario())


def test_an_image_over_the_pixel_limit_is_refused_before_decoding_unless_it_is_the_only_one(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    decode = gate.pipeline.decode

    def watched(body: bytes, *, for_overlay: bool = False) -> Any:
        decoded.append(body)
        return decode(body, for_overlay=for_overlay)

    monkeypatch.setattr(gate.pipeline, "decode", watched)
    settings = Settings(max_waiting_pixels=PIXELS - 1)

    async def scenario() -> None:
        recorder = Recorder()
        service = await started(gate.pipeline, settings, observer=recorder)
        first = asyncio.create_task(service.segment(BODY, Query()))
        await gate.taken_one()
        assert service.admission.pixels == PIXELS
        with pytest.raises(Overloaded) as caught:
            await service.segment(BODY, Query())
        assert caught.value.reason == "pixels_full"
        assert len(decoded) == 1
        gate.open.set()
        assert (await first).instances
        assert (await service.segment(BODY, Query())).instances
        service.stop()
        assert recorder.now_waiting == (0, 0)

    asyncio.run(scenario())


def test_an_image_whose_deadline_passes_while_it_waits_is_not_inferred(gate: Gate) -> None:
    async def scenario() -> None:
        recorder = Recorder()
        service = await started(gate.pipeline, observer=recorder)
        first = asyncio.create_task(service.segment(BODY, Query()))
        await gate.taken_one()
        with pytest.raises(DeadlineExceeded), service.admit(20) as admitted:
            await admitted.answer(BODY, Query(), lambda result, _: result)
        gate.open.set()
        await first
        service.stop()
        assert gate.images == 1
        assert recorder.outcomes == ["deadline_exceeded", "ok"]
        assert recorder.now_waiting == (0, 0)

    asyncio.run(scenario())


def test_an_answer_after_the_deadline_is_not_returned(pipeline: Pipeline) -> None:
    async def scenario() -> None:
        service = await started(pipeline)
        with service.admit(60_000) as admitted:
            admitted._deadline_at = 0.0
            with pytest.raises(DeadlineExceeded):
                await admitted.answer(BODY, Query(), lambda result, _: result)
        service.stop()

    asyncio.run(scenario())


def test_a_caller_that_has_gone_leaves_nothing_behind(gate: Gate, execution: str) -> None:
    async def scenario() -> None:
        recorder = Recorder()
        service = await started(gate.pipeline, observer=recorder)
        first = asyncio.create_task(service.segment(BODY, Query()))
        await gate.taken_one()
        abandoned = asyncio.create_task(service.segment(BODY, Query()))
        batcher, both = service.models.find().batcher, (2, 2 * PIXELS)
        await settled(lambda: batcher.waiting == 1 or (execution == "to completion" and recorder.now_waiting == both))
        abandoned.cancel()
        await settled(abandoned.done)
        assert recorder.outcomes == ["gone"]
        assert service.admission.images == 1
        gate.open.set()
        await first
        await settled(lambda: service.is_idle)
        service.stop()
        assert gate.images == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("end", ["gone", "late"])
def test_encoding_ends_with_the_instance_during_which_nobody_waits_any_more(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    begun, go_on, encoded_masks, accepted = threading.Event(), threading.Event(), [], []

    def slow_encode_mask(*arguments: Any) -> Any:
        encoded_masks.append(arguments)
        begun.set()
        go_on.wait(30)
        return encode_mask(*arguments)

    async def answered(service: Service) -> ImageResult:
        with service.admit() as admitted:
            accepted.append(admitted)
            return await admitted.answer(BODY, Query(), lambda result, _: result)

    async def scenario() -> None:
        service = await started(pipeline)
        assert len((await service.segment(BODY, Query())).instances) > 1
        monkeypatch.setattr("solo_server.backends.cpu.postprocess.encode_mask", slow_encode_mask)
        request = asyncio.create_task(answered(service))
        await asyncio.to_thread(begun.wait, 30)
        if end == "gone":
            request.cancel()
        else:
            accepted[0]._deadline.reschedule(0.0)
            accepted[0]._deadline_at = 0.0
        with pytest.raises(asyncio.CancelledError if end == "gone" else DeadlineExceeded):
            await request
        go_on.set()
        await settled(lambda: service.is_idle)
        assert len(encoded_masks) == 1
        service.stop()

    asyncio.run(scenario())


def test_while_the_model_is_loading_requests_are_refused_with_the_reason(pipeline: Pipeline) -> None:
    async def scenario() -> None:
        loaded = threading.Event()

        def opening() -> Pipeline:
            loaded.wait(30)
            return pipeline

        service = Service(lambda: [ModelSource("tiny", "1", "", opening)])
        starting = asyncio.create_task(service.start())
        await asyncio.sleep(0)
        with pytest.raises(NotReady) as caught:
            await service.segment(BODY, Query())
        assert (service.unready, caught.value.reason) == ("warming", "warming")
        assert service.models.in_service() == []
        loaded.set()
        await starting
        assert service.unready is None
        assert (await service.segment(BODY, Query())).instances
        service.stop()

    asyncio.run(scenario())


def test_start_raises_if_a_model_cannot_be_loaded(tmp_path: Path) -> None:
    service = Service(model_repository(tmp_path / "nothing", None, Pipeline.open))
    with pytest.raises(Exception, match="does not exist"):
        asyncio.run(service.start())
    assert service.unready == "warming"


def test_while_draining_new_requests_are_refused_and_accepted_ones_are_answered(gate: Gate) -> None:
    async def scenario() -> None:
        service = await started(gate.pipeline)
        accepted = [asyncio.create_task(service.segment(BODY, Query())) for _ in range(3)]
        await gate.taken_one()
        service.drain()
        with pytest.raises(NotReady) as caught:
            await service.segment(BODY, Query())
        assert (service.unready, caught.value.reason) == ("draining", "draining")
        gate.open.set()
        assert all(result.instances for result in await asyncio.gather(*accepted))
        service.stop()
        assert service.is_idle

    asyncio.run(scenario())


def test_requests_not_answered_when_the_drain_ends_fail_with_draining(gate: Gate) -> None:
    async def scenario() -> None:
        service = await started(gate.pipeline, Settings(drain_seconds=0))
        accepted = [asyncio.create_task(service.segment(BODY, Query())) for _ in range(2)]
        await gate.taken_one()
        service.drain()
        answers = await asyncio.gather(*accepted, return_exceptions=True)
        assert [getattr(answer, "reason", None) for answer in answers] == ["draining", "draining"]
        service.stop()
        assert not service.is_idle  # the engine is still busy: the process has to be ended
        backend = gate.pipeline.backend
        assert isinstance(backend, Gated)
        assert not backend.is_closed
        gate.open.set()

    asyncio.run(scenario())


def test_an_engine_that_hangs_makes_the_service_unready_and_is_reported_once(gate: Gate) -> None:
    reported: list[ServerError] = []

    async def scenario() -> None:
        service = await started(gate.pipeline, Settings(engine_timeout_s=1), on_end=reported.append)
        answers = await asyncio.gather(*(service.segment(BODY, Query()) for _ in range(2)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [EngineHung, EngineHung]
        assert service.unready == "stalled"
        service.stop()
        gate.open.set()

    asyncio.run(scenario())
    assert [type(problem) for problem in reported] == [EngineHung]


@pytest.mark.parametrize("failure", [RuntimeError("boom"), MemoryError(), SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("stage", ["pixels", "decode", "infer", "finish"])
def test_whatever_a_thread_dies_of_fails_one_request_only(
    pipeline: Pipeline, stage: str, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise failure

    async def scenario() -> None:
        service = await started(pipeline)
        with monkeypatch.context() as patched:
            patched.setattr(pipeline, stage, die)
            with pytest.raises(EngineFailure):
                await service.segment(SLOW_HEADER, Query())
        assert service.is_ready
        assert (await service.segment(BODY, Query())).instances
        service.stop()

    asyncio.run(scenario())


def test_an_image_larger_than_its_first_header_says_is_damaged(pipeline: Pipeline) -> None:
    """Pillow uses the last header before the pixels; admission has counted the pixels of the first one."""
    png = encoded(smooth_image(90, 120))
    lying = struct.pack(">4sIIBBBBB", b"IHDR", 8, 8, 8, 2, 0, 0, 0)
    body = png[:12] + lying + struct.pack(">I", zlib.crc32(lying)) + png[8:]
    assert (pipeline.peek_size(body), pipeline.pixels(body)) == (64, PIXELS)

    async def scenario() -> None:
        service = await started(pipeline)
        with pytest.raises(ImageDamaged, match="give different sizes"):
            await service.segment(body, Query())
        assert (service.admission.images, service.admission.pixels) == (0, 0)
        service.stop()

    asyncio.run(scenario())


def test_an_image_whose_caller_disconnects_while_it_is_decoded_is_not_inferred(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, decode = threading.Event(), threading.Event(), gate.pipeline.decode

    def slow(*arguments: Any, **options: Any) -> Any:
        begun.set()
        go_on.wait(30)
        return decode(*arguments, **options)

    async def scenario() -> None:
        service = await started(gate.pipeline)
        gate.open.set()
        with monkeypatch.context() as patched:
            patched.setattr(gate.pipeline, "decode", slow)
            abandoned = asyncio.create_task(service.segment(BODY, Query()))
            await asyncio.to_thread(begun.wait, 30)
            abandoned.cancel()
            await settled(abandoned.done)
            go_on.set()
            await settled(lambda: service.is_idle)
        assert gate.images == 0
        assert (await service.segment(BODY, Query())).instances
        service.stop()

    asyncio.run(scenario())


def test_a_damaged_image_fails_alone_and_leaves_nothing_behind(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        recorder = Recorder()
        service = await started(pipeline, observer=recorder)
        answers = await asyncio.gather(
            service.segment(BODY[:600], Query()), service.segment(BODY, Query()), return_exceptions=True
        )
        assert isinstance(answers[0], ImageDamaged)
        assert isinstance(answers[1], ImageResult)
        service.stop()
        assert sorted(recorder.outcomes) == ["image_damaged", "ok"]
        assert recorder.now_waiting == (0, 0)
        assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]

    asyncio.run(scenario())
