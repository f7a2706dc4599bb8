"""Models are loaded, unloaded and replaced while requests continue: no request is lost or answered by two models."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from solo_models.bundle import BundleError
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.replicas import Replicas
from solo_server.errors import NotReady, SettingsError, UnknownModel
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import ModelSource
from solo_server.service.service import Service
from solo_server.settings import Settings
from solo_server.types import Query
from support.bundles import quick_bundle
from support.gated_backend import Gate
from support.images import encoded, smooth_image

BODY = encoded(smooth_image(90, 120))


@pytest.fixture(scope="module")
def solo_bundle() -> Path:
    return quick_bundle()


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


class FakeRepository:
    """A model repository that tests change."""

    def __init__(self, **models: Callable[[], Pipeline]) -> None:
        self.sources = [ModelSource(name, "1", "a", opening) for name, opening in models.items()]

    def __call__(self) -> list[ModelSource]:
        return list(self.sources)

    def put(self, name: str, version: str, opening: Callable[[], Pipeline], stamp: str = "a") -> None:
        self.remove(name, version)
        self.sources.append(ModelSource(name, version, stamp, opening))

    def remove(self, name: str, version: str) -> None:
        self.sources = [source for source in self.sources if (source.name, source.version) != (name, version)]


def run(repository: FakeRepository, scenario: Callable[[Service], Awaitable[None]], **settings: Any) -> None:
    """Run a scenario with a started service."""

    async def started() -> None:
        service = Service(repository, Settings(**settings))
        await service.start()
        try:
            await scenario(service)
        finally:
            service.stop()

    asyncio.run(started())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.001)


def states(service: Service) -> dict[tuple[str, str], str]:
    return {(listed.name, listed.version): listed.state for listed in service.models.listed()}


def failing() -> Pipeline:
    raise BundleError("masks.onnx: sha256 differs")


def test_a_model_is_found_by_name_and_version_and_the_only_one_without_a_name(pipeline: Pipeline) -> None:
    repository = FakeRepository(cats=lambda: pipeline)
    repository.put("cats", "10", lambda: pipeline)
    repository.put("cats", "9", lambda: pipeline)

    async def scenario(service: Service) -> None:
        find = service.models.find
        assert find() is find("cats") is find("cats", "10")
        assert (find("cats", "9").version, find(None, "1").version) == ("9", "1")
        for name, version in (("dogs", None), ("cats", "2"), ("", None)):
            with pytest.raises(UnknownModel):
                find(name, version)

    run(repository, scenario)


def test_several_models_have_no_default_unless_one_is_set(pipeline: Pipeline) -> None:
    repository = FakeRepository(cats=lambda: pipeline, dogs=lambda: pipeline)

    async def unnamed(service: Service) -> None:
        with pytest.raises(UnknownModel, match="none is the default"):
            service.models.find()

    async def named(service: Service) -> None:
        assert service.models.find().name == "dogs"
        with service.admit() as admitted:
            assert admitted.model.name == "dogs"

    run(repository, unnamed)
    run(repository, named, default_model="dogs")


def test_an_unknown_default_model_stops_the_start(pipeline: Pipeline) -> None:
    service = Service(FakeRepository(cats=lambda: pipeline), Settings(default_model="dogs"))
    with pytest.raises(SettingsError, match="SOLO_DEFAULT_MODEL: 'dogs' is none of cats"):
        asyncio.run(service.start())


def test_a_model_that_cannot_be_loaded_stops_the_start(pipeline: Pipeline) -> None:
    service = Service(FakeRepository(cats=lambda: pipeline, dogs=failing))
    with pytest.raises(BundleError, match="sha256 differs"):
        asyncio.run(service.start())
    assert not service.is_ready


def test_a_reload_loads_new_models_and_removes_deleted_ones(pipeline: Pipeline) -> None:
    repository = FakeRepository(cats=lambda: pipeline)

    async def scenario(service: Service) -> None:
        before = service.models.find("cats")
        repository.put("dogs", "1", lambda: pipeline)
        await service.models.load()
        assert service.models.find("cats") is before  # the same content is not loaded again
        assert states(service) == {("cats", "1"): "ready", ("dogs", "1"): "ready"}
        repository.remove("cats", "1")
        await service.models.load()
        with pytest.raises(UnknownModel):
            service.models.find("cats")
        await until(lambda: states(service) == {("dogs", "1"): "ready"})

    run(repository, scenario)


def test_changed_content_under_the_same_name_replaces_the_model(pipeline: Pipeline) -> None:
    repository = FakeRepository(cats=lambda: pipeline)

    async def scenario(service: Service) -> None:
        before = service.models.find("cats")
        repository.put("cats", "1", lambda: pipeline, stamp="b")
        await service.models.load("cats")
        assert service.models.find("cats") is not before

    run(repository, scenario)


def test_loading_one_model_leaves_the_others_as_they_are(pipeline: Pipeline) -> None:
    repository = FakeRepository(cats=lambda: pipeline)

    async def scenario(service: Service) -> None:
        repository.put("dogs", "1", lambda: pipeline)
        repository.remove("cats", "1")
        await service.models.load("dogs")
        assert states(service) == {("cats", "1"): "ready", ("dogs", "1"): "ready"}
        with pytest.raises(UnknownModel):
            await service.models.load("birds")
        with pytest.raises(UnknownModel):
            await service.models.unload("birds")

    run(repository, scenario)


def test_a_running_request_is_answered_by_the_model_that_it_started_with(pipeline: Pipeline) -> None:
    gate = Gate(pipeline)
    repository = FakeRepository(cats=lambda: gate.pipeline)

    async def scenario(service: Service) -> None:
        first = asyncio.create_task(service.segment(BODY, Query()))
        await gate.taken_one()
        waiting = asyncio.create_task(service.segment(BODY, Query()))
        old = service.models.find("cats")
        await until(lambda: old.batcher.waiting == 1)
        repository.put("cats", "1", lambda: pipeline, stamp="b")
        await service.models.load()
        assert (await service.segment(BODY, Query())).instances  # by the new one, while the old one is blocked
        assert not gate.pipeline.backend.is_closed  # type: ignore[attr-defined]  # of Gated
        gate.open.set()
        assert (await first).instances
        assert (await waiting).instances
        await until(lambda: gate.pipeline.backend.is_closed)  # type: ignore[attr-defined]

    run(repository, scenario)


def test_an_unloaded_model_answers_its_requests_and_can_be_loaded_again(pipeline: Pipeline) -> None:
    gate = Gate(pipeline)
    repository = FakeRepository(cats=lambda: gate.pipeline)

    async def scenario(service: Service) -> None:
        first = asyncio.create_task(service.segment(BODY, Query()))
        await gate.taken_one()
        await service.models.unload("cats")
        assert states(service) == {("cats", "1"): "unloading"}
        with pytest.raises(UnknownModel):
            await service.segment(BODY, Query())
        gate.open.set()
        assert (await first).instances
        await until(lambda: not states(service))
        await service.models.load("cats")
        assert (await service.segment(BODY, Query())).instances

    run(repository, scenario)


def test_a_model_that_cannot_be_loaded_changes_neither_its_predecessor_nor_the_others(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    repository = FakeRepository(cats=lambda: pipeline)

    async def scenario(service: Service) -> None:
        before = service.models.find("cats")
        repository.put("cats", "1", failing, stamp="b")
        repository.put("cats", "2", failing)
        repository.put("dogs", "1", lambda: pipeline)
        with pytest.raises(BundleError):
            await service.models.load()
        assert service.models.find("cats") is before
        assert states(service) == {("cats", "1"): "ready", ("cats", "2"): "failed", ("dogs", "1"): "ready"}
        assert service.is_ready
        repository.put("cats", "2", lambda: pipeline)
        repository.put("cats", "1", lambda: pipeline)
        await service.models.load()  # repaired
        assert service.models.find("cats").version == "2"

    run(repository, scenario)
    assert "model cats version 1: not loaded: masks.onnx: sha256 differs" in caplog.text


def test_while_a_model_is_loading_it_is_not_ready_and_the_others_answer(pipeline: Pipeline) -> None:
    loaded = threading.Event()

    def slowly() -> Pipeline:
        loaded.wait(30)
        return pipeline

    repository = FakeRepository(cats=lambda: pipeline)

    async def scenario(service: Service) -> None:
        repository.put("dogs", "1", slowly)
        repository.put("cats", "2", slowly)
        loading = asyncio.create_task(service.models.load())
        await until(lambda: ("dogs", "1") in states(service))
        with pytest.raises(NotReady):
            service.models.find("dogs")
        assert service.models.find("cats").version == "1"
        with service.admit(name="cats") as admitted:
            assert (await admitted.answer(BODY, Query(), lambda result, _: result)).instances
        loaded.set()
        await loading
        assert (service.models.find("dogs").version, service.models.find("cats").version) == ("1", "2")

    run(repository, scenario)


def test_a_backend_whose_warm_up_fails_is_closed(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(pipeline)

    def fail() -> None:
        raise BundleError("it does not run here")

    monkeypatch.setattr(gate.pipeline, "warm_up", fail)
    service = Service(FakeRepository(cats=lambda: gate.pipeline))
    with pytest.raises(BundleError):
        asyncio.run(service.start())
    assert gate.pipeline.backend.is_closed  # type: ignore[attr-defined]  # of Gated


def test_replicas_answer_as_one_and_work_at_the_same_time(solo_bundle: Path, pipeline: Pipeline) -> None:
    twins = Pipeline.open(solo_bundle, threads=1, replicas=2)
    assert isinstance(twins.backend, Replicas)
    assert twins.backend.description == f"2 x {pipeline.backend.description}"
    meeting = threading.Barrier(2, timeout=30)

    async def scenario(service: Service) -> None:
        for backend in twins.backend._backends:  # type: ignore[attr-defined]
            backend.infer = _meeting(meeting, backend.infer)
        results = await asyncio.gather(*(service.segment(BODY, Query()) for _ in range(4)))
        assert all(result.instances == pipeline.segment(BODY).instances for result in results)

    run(FakeRepository(twins=lambda: twins), scenario)


def _meeting(barrier: threading.Barrier, infer: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        barrier.wait()  # until the other replica has an image too
        return infer(*arguments)

    return call


def test_replicas_share_the_cores(solo_bundle: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[int] = []

    def pool(threads: int) -> Pool:
        shares.append(threads)
        return Pool(1)

    choice = SimpleNamespace(engine="onnxruntime", reason="", open=lambda *_: pipeline.backend)
    monkeypatch.setattr("solo_server.pipeline.pipeline.choose", lambda *_: choice)  # opens no further engine
    monkeypatch.setattr("solo_server.pipeline.pipeline.Pool", pool)
    monkeypatch.setattr("solo_server.system.cores.cores", lambda: 8)
    Pipeline.open(solo_bundle, replicas=3)
    Pipeline.open(solo_bundle, replicas=2, threads=3)
    assert shares == [2, 2, 2, 3, 3]


def test_on_a_gpu_replicas_are_refused(solo_bundle: Path) -> None:
    with pytest.raises(SettingsError, match="SOLO_REPLICAS: engine cuda has SOLO_SLOTS instead"):
        Pipeline.open(solo_bundle, engine="cuda", replicas=2)
