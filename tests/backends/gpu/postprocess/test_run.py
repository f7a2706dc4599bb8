"""A whole batch on the fake device gives what the CPU path gives: the same instances in the same order, the same strings.

Scores may differ by rounding. Seeds are such that nothing comes as close to a threshold, or two scores to each other, as rounding
reaches; `_expected` looks at that too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from solo_models.spec import ModelSpec, Variant
from solo_server.backends.gpu.network import BatchShape, NetworkMemory
from solo_server.backends.gpu.postprocess import memory, run
from solo_server.backends.gpu.postprocess.memory import CudaLimits, check_limits, slot_bytes
from solo_server.backends.gpu.postprocess.run import STAGES, CudaPostprocessor
from solo_server.backends.gpu.postprocess.strings import instances_of
from solo_server.errors import DeviceFailure, DeviceOutOfMemory, EngineFailure, SettingsError
from solo_server.types import Geometry, Instance, Query
from support.gpu.batch_scenes import GEOMETRIES, Scene, make_scene, opened, small_spec, without
from support.gpu.fake_device import FakeDevice

ROUNDING = 4e-7
VARIANTS: tuple[Variant, ...] = ("solo", "decoupled", "decoupled_light")
SEEDS: dict[str, int] = {"solo": 0, "decoupled": 0, "decoupled_light": 0}


def _expected(scene: Scene, queries: Sequence[Query]) -> list[tuple[Instance, ...]]:
    assert scene.closest(queries) > ROUNDING, "choose another seed"
    return scene.on_cpu(queries)


def _check(found: Sequence[Sequence[Instance]], expected: Sequence[Sequence[Instance]]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose([i.score for i in mine], [i.score for i in theirs], rtol=0, atol=1e-6)
        assert [replace(i, score=0) for i in mine] == [replace(i, score=0) for i in theirs]


def _same(scene: Scene, queries: Sequence[Query], limits: CudaLimits | None = None) -> Counter[str]:
    """Both ways; returns how often each kernel was launched."""
    expected = _expected(scene, queries)
    with opened(scene, limits) as chain:
        _check(chain.run(scene, queries), expected)
        return chain.device.launches


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("images", [1, 3])
def test_instances_are_those_of_the_cpu(variant: Variant, images: int) -> None:
    scene = make_scene(variant, GEOMETRIES[:images], SEEDS[variant])
    assert all(len(instances) > 10 for instances in scene.on_cpu([Query()] * images))
    _same(scene, [Query()] * images)


@pytest.mark.parametrize("variant", ["solo", "decoupled"])
def test_nothing_in_one_image_of_three_leaves_the_others_alone(variant: Variant) -> None:
    _same(without(make_scene(variant, GEOMETRIES, SEEDS[variant]), 1), [Query()] * 3)


def test_a_batch_may_mix_what_is_asked_of_its_images() -> None:
    queries = [
        Query(class_ids=(2, 0), nms="mask"),
        Query(score_threshold=0.4, nms="none"),
        Query(max_instances=7, nms="matrix"),
    ]
    scene = make_scene("solo", GEOMETRIES, 3)
    _same(scene, queries)
    assert [len(instances) for instances in scene.on_cpu(queries)][2] == 7


@pytest.mark.parametrize("method", ["matrix", "mask", "none"])
def test_only_kernels_of_the_nms_that_is_asked_for_are_launched(method: str) -> None:
    launches = _same(make_scene("solo", seed=4), [Query(nms=method)])
    assert (launches["decay"] > 0, launches["greedy_keep"] > 0) == (method == "matrix", method == "mask")
    assert (launches["intersect"] > 0) == (method != "none")


def test_a_threshold_equal_to_a_score_keeps_it() -> None:
    scene = make_scene("solo", seed=5, share=0.05)
    limit = float(np.sort(scene.scores[scene.scores > 0.5])[0])
    scene.scores[scene.scores == np.float32(limit)] = np.float32(0.5)
    with opened(scene) as chain:
        chain.run(scene, [Query(score_threshold=0.5)])
        assert chain.slot._counts["candidates"].tolist() == [(scene.scores >= 0.5).sum()]
        chain.run(scene, [Query(score_threshold=0.05)])
        assert chain.slot._counts["candidates"].tolist() == [(scene.scores > 0.1).sum()]


@pytest.mark.parametrize("variant", VARIANTS)
def test_more_cells_than_fit_are_measured_in_chunks(variant: Variant) -> None:
    scene = make_scene(variant, GEOMETRIES[:2], SEEDS[variant], max_before_nms=12)
    launches = _same(scene, [Query()] * 2, CudaLimits(cells_at_once=13, max_side=512))
    assert launches["list_top_cells"] == 1
    assert launches["measure_cells"] >= 3


def test_the_best_are_chosen_where_all_cells_fit() -> None:
    scene = make_scene("solo", seed=1, max_before_nms=12)
    cells = int((scene.scores[0] > 0).any(1).sum())
    launches = _same(scene, [Query()], CudaLimits(cells_at_once=cells, max_side=512))
    assert (cells > 12, launches["list_top_cells"], launches["measure_cells"]) == (True, 0, 1)


@pytest.mark.parametrize("variant", ["decoupled", "decoupled_light"])
def test_more_axis_maps_than_fit_are_made_in_chunks(variant: Variant) -> None:
    limits = CudaLimits(axis_maps_at_once=3, max_side=512)
    assert _same(make_scene(variant, GEOMETRIES[:2], SEEDS[variant]), [Query()] * 2, limits)["axis_maps"] > 13


def test_more_instances_than_fit_are_encoded_in_passes() -> None:
    queries = [Query(max_instances=40), Query(max_instances=3), Query(max_instances=9)]
    scene = make_scene("solo", GEOMETRIES, SEEDS["solo"])
    launches = _same(scene, queries, CudaLimits(instances_at_once=9, max_side=512))
    assert launches["count_runs"] == 3


@pytest.mark.parametrize("runs", [7, 61, 300])
def test_more_positions_than_fit_are_written_in_windows(runs: int) -> None:
    scene = make_scene("solo", GEOMETRIES[1:2], 7, share=0.05)
    assert _same(scene, [Query()], CudaLimits(runs_per_image=runs, max_side=512))["write_runs"] > 1


def test_more_positions_than_have_numbers_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene("solo", GEOMETRIES[1:2], 7, share=0.05)
    with opened(scene) as chain:
        monkeypatch.setattr(run, "MOST_POSITIONS", 10)
        with pytest.raises(EngineFailure, match="at most 10"):
            chain.run(scene, [Query()])


@pytest.mark.parametrize("variant", ["solo", "decoupled"])
def test_all_that_can_overflow_may_do_so_at_once(variant: Variant) -> None:
    scene = make_scene(variant, GEOMETRIES, 2, max_before_nms=10)
    _same(
        scene,
        [Query()] * 3,
        CudaLimits(10, instances_at_once=3, runs_per_image=70, axis_maps_at_once=1, max_side=512),
    )


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((1, 77), (1, 96), (64, 96)),
        Geometry((77, 1), (64, 1), (64, 96)),
        Geometry((1, 1), (64, 64), (64, 96)),
        Geometry((509, 31), (64, 4), (64, 96)),
        Geometry((13, 17), (64, 84), (64, 96)),
        Geometry((64, 96), (64, 96), (64, 96)),
    ],
    ids=lambda geometry: "x".join(map(str, geometry.original_hw)),
)
def test_original_sizes_may_be_odd(geometry: Geometry) -> None:
    _same(make_scene("solo", (geometry,), 6), [Query()])


def test_masks_may_cover_everything() -> None:
    """Each of them touches every border; strings are of one run, after an empty one."""
    scene = make_scene("solo", GEOMETRIES[:1])
    for name, values in scene.kernels.items():
        values[:] = 9 if name.endswith("bias") else 0
    with opened(scene) as chain:
        _check(found := chain.run(scene, [Query(nms="none")]), scene.on_cpu([Query(nms="none")]))
    assert {i.box_xywh for i in found[0]} == {(0, 0, 61, 97)}


def test_nothing_in_the_whole_batch_ends_after_the_candidates() -> None:
    scene = make_scene("solo", GEOMETRIES[:2])
    scene.scores[:] = 0
    with opened(scene, timed=True) as chain:
        assert chain.run(scene, [Query()] * 2) == [(), ()]
        assert set(chain.device.launches) == {"count_candidates", "scan_candidates", "write_candidates"}
        assert list(chain.slot.stage_ms()) == ["candidates"]


def test_groups_are_those_with_candidates_in_any_image() -> None:
    scene = make_scene("solo", GEOMETRIES[:2], share=0)
    first = scene.spec.first_cells
    scene.scores[0, first[1], 0] = scene.scores[1, first[4] + 1, 2] = 0.9
    with opened(scene) as chain:
        chain._put(chain.network.scores.address, scene.scores)
        chain.slot.begin(scene.shape, scene.geometries, [Query()] * 2)
        assert chain.slot.counts() == (0, 2)


def test_the_host_waits_twice_and_copies_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, calls = make_scene("solo", GEOMETRIES, SEEDS["solo"], share=0.05), Counter[str]()
    with opened(scene) as chain:
        _count(monkeypatch, type(chain.stream), calls, "upload", "download", "synchronize")
        _count(monkeypatch, type(chain.slot._counts_ready), calls, "synchronize")
        chain.run(scene, [Query()] * 3)
        monkeypatch.undo()
    assert calls == {"upload": 1, "download": 2, "synchronize": 2}


def _count(patch: pytest.MonkeyPatch, kind: type[Any], calls: Counter[str], *names: str) -> None:
    for name in names:
        original = getattr(kind, name)

        def counted(self: Any, *arguments: Any, _name: str = name, _original: Any = original, **named: Any) -> Any:
            calls[_name] += 1
            return _original(self, *arguments, **named)

        patch.setattr(kind, name, counted)


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_slot_takes_one_batch_after_another(seed: int) -> None:
    """Of other shapes and on other orders of events; what was copied out stays."""
    large = make_scene("solo", GEOMETRIES[:2], SEEDS["solo"])
    small = make_scene("solo", (Geometry((40, 30), (32, 24), (32, 32)),), 8)
    small = replace(small, kernels=large.kernels)
    expected = [_expected(scene, [Query()] * scene.shape.images) for scene in (large, small)]
    with opened(large, seed=seed) as chain:
        first = chain.found(large, [Query()] * 2)
        _check(chain.run(small, [Query()]), expected[1])
        _check([instances_of(found) for found in first], expected[0])
        _check(chain.run(large, [Query()] * 2), expected[0])


def test_every_stage_has_a_time() -> None:
    scene = make_scene("solo", share=0.05)
    with opened(scene, timed=True) as chain:
        chain.run(scene, [Query()])
        times = chain.slot.stage_ms()
    assert tuple(times) == STAGES
    assert min(times.values()) >= 0


@pytest.mark.parametrize(
    ("shape", "geometry"),
    [
        (BatchShape(2, (64, 96)), GEOMETRIES[0]),
        (BatchShape(1, (96, 64)), GEOMETRIES[0]),
        (BatchShape(1, (32, 96)), GEOMETRIES[0]),
        (BatchShape(1, (64, 96)), Geometry((20, 513), (4, 96), (64, 96))),
    ],
)
def test_what_does_not_fit_is_refused(shape: BatchShape, geometry: Geometry) -> None:
    scene = make_scene("solo", share=0.05)
    with opened(scene) as chain, pytest.raises(EngineFailure):
        chain.slot.begin(shape, [geometry] * shape.images, [Query()] * shape.images)


def test_images_and_queries_are_as_many_as_the_shape_says() -> None:
    scene = make_scene("solo", share=0.05)
    with opened(scene) as chain, pytest.raises(EngineFailure, match="2 queries"):
        chain.slot.begin(scene.shape, scene.geometries, [Query()] * 2)


def test_memory_that_does_not_suffice_is_given_back() -> None:
    scene, device = make_scene("solo", share=0.05), FakeDevice()
    shapes, limits = (scene.shape,), CudaLimits(max_side=512)
    network = NetworkMemory.allocate(device, scene.spec, shapes)
    postprocessor = CudaPostprocessor(device, (scene.spec, scene.kernels), b"", shapes, limits)
    buffers = len(slot_bytes(scene.spec, limits, shapes))
    for number in (1, 9, buffers, buffers + 2):
        device.fail_allocation(number)
        with pytest.raises(DeviceOutOfMemory):
            postprocessor.open_slot(device.create_stream(), network)
    postprocessor.close()
    network.free()
    device.close()


def test_mask_kernels_that_do_not_fit_leave_nothing_behind() -> None:
    scene, device = make_scene("solo", share=0.05), FakeDevice()
    for number in (1, 2):
        device.fail_allocation(number)
        with pytest.raises(DeviceOutOfMemory):
            CudaPostprocessor(device, (scene.spec, scene.kernels), b"", (scene.shape,), CudaLimits(max_side=512))
    device.close()


@pytest.mark.parametrize("kernel", ["write_candidates", "measure_cells", "write_runs"])
def test_a_slot_works_again_after_a_launch_has_failed(kernel: str) -> None:
    scene = make_scene("solo", seed=1)
    expected = _expected(scene, [Query()])
    with opened(scene) as chain:
        chain.device.fail_launch(kernel)
        with pytest.raises(DeviceFailure, match=kernel):
            chain.run(scene, [Query()])
        chain.stream.synchronize()
        _check(chain.run(scene, [Query()]), expected)


@pytest.mark.parametrize(
    ("field", "limits", "rules"),
    [
        ("instances_at_once", CudaLimits(instances_at_once=0), {}),
        ("instances_at_once", CudaLimits(instances_at_once=65_536), {}),
        ("runs_per_image", CudaLimits(runs_per_image=0), {}),
        ("runs_per_image", CudaLimits(runs_per_image=1 << 30), {}),
        ("axis_maps_at_once", CudaLimits(axis_maps_at_once=-1), {}),
        ("max_side", CudaLimits(max_side=0), {}),
        ("cells_at_once", CudaLimits(cells_at_once=499), {}),
        ("max_before_nms", CudaLimits(), {"max_before_nms": 2049}),
    ],
)
def test_limits_that_cannot_work_are_named(field: str, limits: CudaLimits, rules: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"^{field}: "):
        check_limits(small_spec("solo", **rules), limits, [BatchShape(2, (64, 96))])


def test_shapes_that_cannot_work_are_named() -> None:
    with pytest.raises(SettingsError, match=r"^preprocess.long_side: "):
        check_limits(small_spec("solo"), CudaLimits(), [BatchShape(1, (6400, 64))])
    with pytest.raises(SettingsError, match=r"^max_batch: "):
        check_limits(small_spec("solo"), CudaLimits(), [BatchShape(65_536, (64, 64))])


def test_levels_are_at_most_eight() -> None:
    spec = replace(small_spec("solo"), grids=(1,) * 5)
    object.__setattr__(spec, "grids", (1,) * 9)
    with pytest.raises(SettingsError, match=r"^grids: "):
        check_limits(spec, CudaLimits(), [])


def test_memory_suffices_for_each_shape() -> None:
    spec, wide, high = small_spec("decoupled"), BatchShape(1, (64, 96)), BatchShape(2, (96, 64))
    both = slot_bytes(spec, CudaLimits(), [wide, high])
    for shape in (wide, high, BatchShape(1, (64, 64))):
        assert all(size <= both[name] for name, size in slot_bytes(spec, CudaLimits(), [shape]).items())


@pytest.mark.parametrize(
    ("variant", "hw", "megabytes"),
    [
        ("solo", (512, 896), 33.8),
        ("solo", (800, 1344), 72.0),
        ("decoupled", (512, 896), 46.6),
        ("decoupled_light", (800, 1344), 101.9),
    ],
)
def test_published_networks_need_the_memory_that_memory_py_says(
    variant: Variant, hw: tuple[int, int], megabytes: float
) -> None:
    spec = ModelSpec(variant=variant, backbone="resnet50", class_names=tuple(map(str, range(80))))
    needed = slot_bytes(spec, CudaLimits(), [BatchShape(1, hw)])
    assert round(sum(needed.values()) / 1e6, 1) == megabytes
    assert str(megabytes) in (memory.__doc__ or "")


def test_a_slot_does_not_finish_with_the_counts_of_the_batch_before() -> None:
    scene = make_scene("solo", share=0.05)
    with opened(scene) as chain:
        chain.run(scene, [Query()])
        chain.slot.begin(scene.shape, scene.geometries, [Query()])
        with pytest.raises(EngineFailure, match="counts"):
            chain.slot.finish()
