"""The optimised pipeline gives the results of the plain form: candidates, scores, labels and masks of all variants."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_export import plain
from solo_models.network import SoloNetwork
from solo_models.spec import PostprocessSpec
from solo_results.rle import decode_rle
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.postprocess import find_candidates
from solo_server.pipeline.image import prepare
from solo_server.pipeline.pipeline import Decoded, Pipeline
from solo_server.types import ImageResult, Instance, Query
from support.images import smooth_image

SIZES = [(96, 150), (150, 96), (101, 133), (300, 40)]


@pytest.fixture(scope="module")
def pipeline(bundle_path: Path) -> Pipeline:
    return Pipeline.open(bundle_path, threads=1)


def _segment(pipeline: Pipeline, pixels: NDArray[np.uint8], query: Query | None = None) -> ImageResult:
    prepared = prepare(pixels, pipeline.bundle.spec.preprocess)
    return pipeline.segment_decoded(Decoded(prepared, pixels, 0, 0), query or Query())


def _expected(network: SoloNetwork, pixels: NDArray[np.uint8], **changes: object) -> plain.Detections:
    prepared = prepare(pixels, network.spec.preprocess)
    settings = replace(network.spec.postprocess, **changes)  # type: ignore[arg-type]  # test parameters
    return plain.segment(network, prepared.pixels, prepared.geometry.resized_hw, pixels.shape[:2], settings)


def _check_same(found: tuple[Instance, ...], expected: tuple[Instance, ...]) -> None:
    """Equal up to rounding: matrix products of another shape sum in another order."""
    assert [(i.class_id, i.box_xywh) for i in found] == [(i.class_id, i.box_xywh) for i in expected]
    np.testing.assert_allclose([i.score for i in found], [i.score for i in expected], atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_instances_are_those_of_the_plain_form(network: SoloNetwork, pipeline: Pipeline, size: tuple[int, int]) -> None:
    pixels = smooth_image(*size, seed=size[0])
    expected, result = _expected(network, pixels), _segment(pipeline, pixels)
    assert len(result.instances) == len(expected.labels) >= 20
    assert [i.class_id for i in result.instances] == expected.labels.tolist()
    np.testing.assert_allclose([i.score for i in result.instances], expected.scores, atol=1e-4)
    for instance, mask in zip(result.instances, expected.masks, strict=True):
        found = decode_rle(instance.mask)
        assert (found != mask).mean() <= 2e-4
        assert instance.area == found.sum()


@pytest.mark.parametrize("size", SIZES[:2])
def test_candidates_are_the_same_set(network: SoloNetwork, pipeline: Pipeline, size: tuple[int, int]) -> None:
    pixels = smooth_image(*size, seed=size[0])
    prepared = prepare(pixels, network.spec.preprocess)
    found = find_candidates(pipeline.infer([prepared])[0].scores, network.spec.postprocess)
    expected = plain.candidates(network, prepared.pixels, prepared.geometry.resized_hw)
    assert set(zip(found.cells.tolist(), found.labels.tolist(), strict=True)) == expected


def test_a_linear_decay_kernel_is_used(network: SoloNetwork, content: object, pipeline: Pipeline) -> None:
    pixels = smooth_image(96, 150)
    spec = replace(pipeline.bundle.spec, postprocess=PostprocessSpec(decay_kernel="linear"))
    bundle = replace(pipeline.bundle, spec=spec)
    linear = Pipeline(bundle, CpuBackend(bundle, pipeline.backend.engine))  # type: ignore[attr-defined]  # a CPU's
    expected = _expected(network, pixels, decay_kernel="linear")
    np.testing.assert_allclose([i.score for i in _segment(linear, pixels).instances], expected.scores, atol=1e-4)


def test_a_higher_threshold_gives_the_first_instances_of_the_same_list(pipeline: Pipeline) -> None:
    pixels = smooth_image(96, 150)
    everything = _segment(pipeline, pixels).instances
    third = len(everything) // 3
    threshold = (everything[third].score + everything[third + 1].score) / 2
    assert threshold > pipeline.bundle.spec.postprocess.candidate_threshold
    chosen = _segment(pipeline, pixels, Query(score_threshold=threshold)).instances
    _check_same(chosen, tuple(i for i in everything if i.score >= threshold))


def test_requested_classes_have_the_same_scores(pipeline: Pipeline) -> None:
    pixels = smooth_image(96, 150)
    everything = _segment(pipeline, pixels, Query(max_instances=500)).instances
    chosen = _segment(pipeline, pixels, Query(class_ids=(1,), max_instances=500)).instances
    _check_same(chosen, tuple(i for i in everything if i.class_id == 1))
    assert 0 < len(chosen) < len(everything)


def test_max_instances_limits_the_number_of_instances(pipeline: Pipeline) -> None:
    pixels = smooth_image(96, 150)
    assert _segment(pipeline, pixels, Query(max_instances=3)).instances == _segment(pipeline, pixels).instances[:3]


def test_without_nms_no_score_is_decayed(pipeline: Pipeline) -> None:
    pixels = smooth_image(96, 150)
    found, plain = (_segment(pipeline, pixels, Query(nms=n, max_instances=500)).instances for n in ("matrix", "none"))
    assert len(plain) >= len(found)
    assert sum(i.score for i in plain) > sum(i.score for i in found)


def test_greedy_nms_returns_a_subset_with_undecayed_scores(pipeline: Pipeline) -> None:
    pixels = smooth_image(96, 150)
    kept, plain = (_segment(pipeline, pixels, Query(nms=n, max_instances=500)).instances for n in ("mask", "none"))
    shapes = {(i.class_id, i.mask) for i in plain}
    assert {(i.class_id, i.mask) for i in kept} < shapes


def test_nothing_found_is_an_empty_tuple(pipeline: Pipeline) -> None:
    assert _segment(pipeline, smooth_image(96, 150), Query(score_threshold=1.0)).instances == ()


def test_an_image_of_one_pixel_is_answered(pipeline: Pipeline) -> None:
    assert _segment(pipeline, np.zeros((1, 1, 3), np.uint8)).original_hw == (1, 1)


def test_a_result_does_not_depend_on_other_images_of_the_batch(pipeline: Pipeline) -> None:
    images = [prepare(smooth_image(96, 150, seed), pipeline.bundle.spec.preprocess) for seed in range(3)]
    together = pipeline.infer(images)
    for prepared, output in zip(images, together, strict=True):
        decoded = Decoded(prepared, prepared.pixels, 0, 0)
        alone = pipeline.segment_decoded(decoded, Query())
        batched = pipeline.finish(output, decoded, Query(), 0)
        assert [i.class_id for i in alone.instances] == [i.class_id for i in batched.instances]
        np.testing.assert_allclose([i.score for i in alone.instances], [i.score for i in batched.instances], atol=1e-5)


def _record_towers(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of all maps that the mask towers run on from now on."""
    ran: list[tuple[int, ...]] = []
    head = pipeline.backend.engine._head  # type: ignore[attr-defined]  # the compiled engine's
    run = head.mask_features
    monkeypatch.setattr(head, "mask_features", lambda levels: ran.extend(x.shape[1:] for x in levels) or run(levels))
    return ran


def test_warming_up_runs_every_tower_on_an_ordinary_image(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = _record_towers(pipeline, monkeypatch)
    pipeline.warm_up()
    once = [(16, 24), (16, 24), (8, 12), (4, 6), (4, 6)]
    assert ran[:5] == once
    assert sorted(ran) == sorted(once * (1 + pipeline.backend.max_concurrency))


def test_the_mask_tower_of_a_level_without_candidates_is_never_run(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = _record_towers(pipeline, monkeypatch)
    prepared = prepare(smooth_image(96, 150), pipeline.bundle.spec.preprocess)
    output = pipeline.infer([prepared])[0]
    first = pipeline.bundle.spec.grids[0] ** 2
    output.scores[first:] = 0
    assert pipeline.finish(output, Decoded(prepared, prepared.pixels, 0, 0), Query(), 0).instances
    assert len(ran) == 1
