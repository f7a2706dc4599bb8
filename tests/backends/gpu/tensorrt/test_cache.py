"""An engine is built once for each key and never returned for another key; what is damaged or refused is built again, once."""

import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from solo_models.bundle import CATEGORIES, MASKS
from solo_models.engine_file import read_engine, read_engine_header, write_engine
from solo_server.backends.gpu.tensorrt import cache as tensorrt_cache
from solo_server.backends.gpu.tensorrt.build import BuiltPlan, EngineBuildError, PlanRequest, Progress
from solo_server.backends.gpu.tensorrt.cache import CachedEngine, EngineCache
from solo_server.backends.gpu.tensorrt.profiles import engine_profiles
from solo_server.errors import EngineFailure, SettingsError
from support.gpu.fake_tensorrt_builder import T4, TIMES, V100, FakeTensorRt, Workshop, build_slowly, small_bundle


class Refused(EngineFailure):
    """TensorRT does not take a plan."""


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "engines")


def _engine(workshop: Workshop, cache: EngineCache | None = None) -> CachedEngine:
    return (cache or workshop.cache()).engine_for(workshop.bundle, CATEGORIES, workshop.profiles)


def test_an_engine_is_built_once_and_then_found(workshop: Workshop) -> None:
    first, second = _engine(workshop), _engine(workshop)
    assert (first.is_new, second.is_new, workshop.built) == (True, False, [CATEGORIES])
    assert second.plan == first.plan == read_engine(first.path)[1]


def test_the_header_says_what_the_engine_belongs_to(workshop: Workshop) -> None:
    header = read_engine_header(_engine(workshop).path)
    assert (header.tensorrt_version, header.compute_capability, header.gpu_name) == ("10.4.0", "7.0", V100.name)
    assert (header.precision, header.profiles, header.ran_on_gpu) == ("fp16", workshop.profiles.categories, False)


def test_an_engine_that_has_run_says_so_and_is_still_found(workshop: Workshop) -> None:
    engine = _engine(workshop)
    workshop.cache().note_run(engine)
    assert read_engine_header(engine.path).ran_on_gpu
    found = _engine(workshop)
    assert (found.is_new, found.plan) == (False, engine.plan)


def test_an_engine_that_is_known_to_have_run_is_not_locked_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _engine(workshop)
    workshop.cache().note_run(engine)

    def locked(path: Path, waiting: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(tensorrt_cache, "locked", locked)
    workshop.cache().note_run(engine)


def _another(workshop: Workshop, what: str) -> CachedEngine:
    """The engine for something that differs in one field."""
    bundle, profiles, cache = workshop.bundle, workshop.profiles, workshop.cache()
    if what == "onnx_sha256":
        bundle = small_bundle(onnx=b"other weights")
    if what == "precision":
        bundle = small_bundle("fp32")
    if what == "profiles":
        profiles = engine_profiles(bundle.spec, 4)
    if what == "tensorrt_version":
        cache = workshop.cache(trt=FakeTensorRt("10.4.1"))
    if what == "gpu_name":
        cache = workshop.cache(replace(V100, name="Tesla V100-PCIE-32GB"))
    if what == "compute_capability":
        cache = workshop.cache(replace(V100, capability=(7, 2)))
    return cache.engine_for(bundle, CATEGORIES, profiles)


FIELDS = ("onnx_sha256", "precision", "profiles", "tensorrt_version", "gpu_name", "compute_capability")


@pytest.mark.parametrize("what", FIELDS)
def test_whatever_differs_gets_an_engine_of_its_own_beside_the_first(workshop: Workshop, what: str) -> None:
    first = _engine(workshop)
    other = _another(workshop, what)
    assert other.is_new
    assert other.path != first.path
    assert any(f"{what}: the file has " in line for line in workshop.lines)
    assert not _engine(workshop).is_new


@pytest.mark.parametrize("what", FIELDS)
def test_a_file_of_another_key_under_the_right_name_is_built_again(workshop: Workshop, what: str) -> None:
    other, path = _another(workshop, what), _engine(workshop).path
    path.write_bytes(other.path.read_bytes())
    found = _engine(workshop)
    assert found.is_new
    assert found.plan != other.plan
    assert any(f"{path}: {what}: the file has" in line for line in workshop.lines)


def test_without_building_the_field_that_differs_is_named_with_both_values(workshop: Workshop) -> None:
    _engine(workshop)
    with pytest.raises(
        SettingsError, match=r"gpu_name: the file has 'Tesla V100-SXM2-16GB', here is 'Tesla V100-PCIE'"
    ):
        _engine(workshop, workshop.cache(replace(V100, name="Tesla V100-PCIE"), build=False))
    profiles = engine_profiles(workshop.bundle.spec, 8)
    with pytest.raises(SettingsError, match=r"profiles: .*2x128x192x3.*here is.*8x128x192x3"):
        workshop.cache(build=False).engine_for(workshop.bundle, CATEGORIES, profiles)
    assert workshop.built == [CATEGORIES]


def test_without_building_an_empty_folder_is_an_error_and_stays_away(workshop: Workshop) -> None:
    with pytest.raises(SettingsError, match="has none of this graph"):
        _engine(workshop, workshop.cache(build=False))
    assert not workshop.folder.exists()


def test_without_building_an_engine_that_is_there_is_found(workshop: Workshop) -> None:
    _engine(workshop)
    assert not _engine(workshop, workshop.cache(build=False)).is_new


@pytest.mark.parametrize("damage", ["cut off", "changed", "empty", "no engine"])
def test_a_damaged_file_is_built_again_once(workshop: Workshop, damage: str) -> None:
    path = _engine(workshop).path
    content = path.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes({"cut off": content[:-3], "changed": changed, "empty": b"", "no engine": b"x" * 500}[damage])
    with pytest.raises(SettingsError, match="is damaged: "):
        _engine(workshop, workshop.cache(build=False))
    assert _engine(workshop).is_new
    assert not _engine(workshop).is_new
    assert workshop.built == [CATEGORIES] * 2
    assert any("is damaged: " in line for line in workshop.lines)


def test_a_build_that_fails_leaves_no_engine_and_no_lock(workshop: Workshop) -> None:
    def fails(trt: Any, request: PlanRequest, progress: Progress) -> BuiltPlan:
        raise EngineBuildError("categories.onnx: no kernel")

    with pytest.raises(EngineBuildError):
        _engine(workshop, replace(workshop.cache(), builder=fails))
    assert not list(workshop.folder.glob("*.engine"))
    assert _engine(workshop).is_new


def _load(workshop: Workshop, refused: set[bytes], always: bool = False, **options: Any) -> Mapping[str, CachedEngine]:
    def load(engines: Mapping[str, CachedEngine]) -> Mapping[str, CachedEngine]:
        if always or any(engine.plan in refused for engine in engines.values()):
            raise Refused("of another driver")
        return engines

    return workshop.cache(**options).loaded(workshop.bundle, workshop.profiles, load, Refused)


def test_engines_that_are_refused_are_built_again_and_loaded(workshop: Workshop) -> None:
    old = {engine.plan for engine in _load(workshop, set()).values()}
    new = _load(workshop, old)
    assert workshop.built == [CATEGORIES, MASKS] * 2
    assert any("are refused (of another driver)" in line for line in workshop.lines)
    assert not old & {engine.plan for engine in new.values()}
    assert {engine.path: engine.plan for engine in new.values()} == {
        e.path: read_engine(e.path)[1] for e in new.values()
    }


def test_engines_that_are_refused_again_are_an_error_after_one_build(workshop: Workshop) -> None:
    _load(workshop, set())
    with pytest.raises(Refused):
        _load(workshop, set(), always=True)
    assert workshop.built == [CATEGORIES, MASKS] * 2


def test_engines_that_are_refused_just_after_they_were_built_are_not_built_again(workshop: Workshop) -> None:
    with pytest.raises(Refused):
        _load(workshop, set(), always=True)
    assert workshop.built == [CATEGORIES, MASKS]


def test_without_building_engines_that_are_refused_stay_as_they_are(workshop: Workshop) -> None:
    old = {engine.path: engine.plan for engine in _load(workshop, set()).values()}
    with pytest.raises(Refused):
        _load(workshop, set(old.values()), build=False)
    assert {path: read_engine(path)[1] for path in old} == old


def test_a_refused_engine_that_another_process_has_replaced_is_taken(workshop: Workshop) -> None:
    kept = _load(workshop, set())
    calls = []

    def load(engines: Mapping[str, CachedEngine]) -> None:
        calls.append(engines)
        if len(calls) == 1:
            for engine in kept.values():
                header, plan = read_engine(engine.path)
                newer = replace(header, plan_bytes=len(plan) + 1)
                write_engine(engine.path, _rehashed(newer, plan + b"!"), plan + b"!")
            raise Refused("old")

    workshop.cache().loaded(workshop.bundle, workshop.profiles, load, Refused)
    assert workshop.built == [CATEGORIES, MASKS]
    assert all(engine.plan.endswith(b"!") for engine in calls[1].values())


def _rehashed(header: Any, plan: bytes) -> Any:
    key = tensorrt_cache.EngineKey(**{f: getattr(header, f) for f in tensorrt_cache.EngineKey.__slots__})
    return key.header(plan)


def test_of_two_processes_one_builds_and_both_have_the_engine(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    notes = tmp_path / "notes"
    processes = [context.Process(target=build_slowly, args=(tmp_path / "engines", notes)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert notes.read_text().splitlines() == ["built", "has ftrt plan", "has ftrt plan"]


def test_kernel_times_are_kept_for_the_next_build_of_the_same_gpu(workshop: Workshop) -> None:
    seen: list[bytes] = []

    def build(trt: Any, request: PlanRequest, progress: Progress) -> BuiltPlan:
        seen.append(request.timing_cache)
        return BuiltPlan(b"ftrt" + request.onnx, TIMES + request.name.encode())

    cache = replace(workshop.cache(), builder=build)
    for graph in (CATEGORIES, MASKS):
        cache.engine_for(workshop.bundle, graph, workshop.profiles)
    replace(cache, gpu=T4).engine_for(workshop.bundle, CATEGORIES, workshop.profiles)
    assert seen == [b"", TIMES + CATEGORIES.encode(), b""]
    kept = sorted(path.name for path in workshop.folder.glob("timing-*"))
    assert kept == ["timing-Tesla_T4_7.5_10.4.0.cache", "timing-Tesla_V100_SXM2_16GB_7.0_10.4.0.cache"]


def test_kernel_times_of_another_user_that_cannot_be_read_do_not_stop_a_build(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _engine(workshop)
    (times,) = workshop.folder.glob("timing-*")
    read_bytes, lines = Path.read_bytes, []

    def closed(self: Path) -> bytes:
        if self == times:
            raise PermissionError("not yours")
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", closed)
    cache = replace(workshop.cache(), log=lines.append)
    assert cache.engine_for(workshop.bundle, MASKS, workshop.profiles).is_new
    assert any("kernel times cannot be read, every kernel is timed: not yours" in text for text in lines)


def test_kernel_times_that_cannot_be_written_whole_leave_the_old_ones(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _engine(workshop)
    (times,) = workshop.folder.glob("timing-*")
    before = times.read_bytes()

    def full(source: Path, target: Path, replace: Any = os.replace) -> None:
        if target.name == times.name:
            raise OSError("no space left")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    lines: list[str] = []
    masks = replace(workshop.cache(), log=lines.append).engine_for(workshop.bundle, MASKS, workshop.profiles)
    assert read_engine(masks.path)[1] == masks.plan
    assert any("kernel times are not kept for the next build: no space left" in text for text in lines)
    assert times.read_bytes() == before
    assert not [path for path in workshop.folder.iterdir() if path.name.startswith(f".{times.name}.")]


@pytest.mark.parametrize(
    ("version", "gpu", "precision", "int8_for"),
    [("10.16.1.11", V100, "fp16", None), ("10.4.0", V100, "int8", "tensorrt"), ("10.4.0", T4, "int8", "cpu")],
)
def test_what_does_not_go_together_is_not_even_looked_for(
    workshop: Workshop, version: str, gpu: Any, precision: str, int8_for: str | None
) -> None:
    workshop.bundle = small_bundle(precision, int8_for)
    with pytest.raises(SettingsError, match="engine tensorrt: "):
        _engine(workshop, workshop.cache(gpu, trt=FakeTensorRt(version)))
    assert not workshop.folder.exists()
