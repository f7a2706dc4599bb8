"""Polygons to masks: by hand, equal to pycocotools on whole coordinates, and near it on others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from solo_results import fill as fill_module
from solo_results.errors import PolygonTooComplex
from solo_results.fill import fill, fill_parts
from solo_results.rle import decode_rle, encode_rle
from solo_results.runs import ObjectRuns, runs_of_counts, union
from solo_results.types import RleMask

H, W = 13, 17
NEAR = 0.25  # pixels: pycocotools rounds to fifths, see fill.py


def array(runs: ObjectRuns) -> NDArray[np.bool_]:
    return decode_rle(RleMask(runs.size, runs.counts))


def ring(*points: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(points, np.float64)


def coco(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    return coco_mask.decode(coco_mask.frPyObjects([points.ravel().tolist()], H, W))[..., 0].astype(np.bool_)


def polygons(coordinates: st.SearchStrategy[float]) -> st.SearchStrategy[NDArray[np.float64]]:
    points = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)
    return points.map(lambda found: np.clip(np.array(found, np.float64), 0, (W, H)))


def test_a_pixel_is_filled_where_its_centre_is_inside() -> None:
    filled = array(fill([ring((0.4, 0.4), (1.6, 0.4), (1.6, 1.4), (0.4, 1.4))], (2, 3)))
    assert filled.tolist() == [[True, True, False], [False, False, False]]


def test_an_inner_ring_is_a_hole_and_a_second_part_is_joined() -> None:
    square, hole = ring((0, 0), (3, 0), (3, 3), (0, 3)), ring((1, 1), (2, 1), (2, 2), (1, 2))
    assert array(fill([square, hole], (3, 3))).sum() == 8
    assert array(fill_parts([[square], [hole]], (3, 3))).sum() == 9


def test_what_is_outside_of_the_image_is_cut_off() -> None:
    assert array(fill([ring((-50, -50), (1, -50), (1, 90), (-50, 90))], (2, 3))).tolist() == [[True, False, False]] * 2


@pytest.mark.parametrize("rings", [[], [np.zeros((0, 2))], [ring((1, 1))], [ring((1, 1), (2, 2))]])
def test_fewer_than_three_points_fill_nothing(rings: list[NDArray[np.float64]]) -> None:
    assert fill(rings, (3, 3)).area == 0


@settings(deadline=None)
@given(polygons(st.integers(0, W).map(float)))
def test_whole_coordinates_fill_as_in_pycocotools_up_to_slanted_edges(points: NDArray[np.float64]) -> None:
    _check_near(points)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, W), st.integers(0, H)), min_size=2, max_size=8))
def test_edges_along_pixels_fill_exactly_as_in_pycocotools(corners: list[tuple[int, int]]) -> None:
    points = [
        point
        for (x, y), (_, after) in zip(corners, corners[1:] + corners[:1], strict=True)
        for point in ((x, y), (x, after))
    ]
    closed = ring(*points)
    np.testing.assert_array_equal(array(fill([closed], (H, W))), coco(closed))


@settings(deadline=None)
@given(polygons(st.floats(0, W)))
def test_other_coordinates_differ_from_pycocotools_only_near_the_outline(points: NDArray[np.float64]) -> None:
    _check_near(points)


def _check_near(points: NDArray[np.float64]) -> None:
    rows, columns = np.nonzero(array(fill([points], (H, W))) != coco(points))
    for centre in np.stack((columns + 0.5, rows + 0.5), axis=1):
        assert _to_outline(centre, points) <= NEAR


def _to_outline(point: NDArray[np.float64], points: NDArray[np.float64]) -> float:
    edges, to_point = np.roll(points, -1, axis=0) - points, point - points
    along = np.clip((edges * to_point).sum(axis=1) / np.maximum((edges**2).sum(axis=1), 1e-12), 0, 1)
    return float(np.sqrt(((to_point - along[:, None] * edges) ** 2).sum(axis=1)).min())


def test_too_many_crossings_are_refused_before_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill_module, "MAX_CROSSINGS", 100)
    zigzag = ring(*[(0.0 if number % 2 else W, float(number)) for number in range(12)])
    with pytest.raises(PolygonTooComplex, match="204 times; 100 are allowed"):
        fill([zigzag], (H, W))


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32), max_size=4), st.integers(1, 6), st.integers(1, 6))
def test_a_union_has_the_pixels_of_any_mask(seeds: list[int], height: int, width: int) -> None:
    masks = [np.random.default_rng(seed).random((height, width)) < 0.4 for seed in seeds]
    joined = union((height, width), [runs_of_counts((height, width), encode_rle(mask)) for mask in masks])
    expected = np.any(masks, axis=0) if masks else np.zeros((height, width), np.bool_)
    assert joined.counts == encode_rle(expected)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9), st.sampled_from((0.05, 0.5, 1.0)))
def test_area_box_and_counts_of_runs_are_those_of_pycocotools(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    runs = runs_of_counts((height, width), encoded["counts"].decode())
    assert runs.counts == encoded["counts"].decode()
    assert runs.area == coco_mask.area(encoded)
    assert list(runs.box_xywh) == coco_mask.toBbox(encoded).tolist()
