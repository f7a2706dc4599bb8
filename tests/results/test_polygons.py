"""Polygons of masks: worked out by hand, then filled again by pycocotools and OpenCV, then on random masks."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy import ndimage
from solo_results.errors import DamagedMask
from solo_results.polygons import Part, bridged, bridged_parts, polygons_of_counts, polygons_of_mask
from solo_results.rle import encode_counts, encode_rle

Mask = NDArray[np.bool_]


def drawn(*rows: str) -> Mask:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def flat(mask: Mask) -> list[list[list[int]]]:
    return [part.to_flat() for part in polygons_of_mask(mask)]


@st.composite
def masks(draw: st.DrawFn, longest: int = 12) -> Mask:
    height, width = draw(st.integers(1, longest)), draw(st.integers(1, longest))
    rng, share = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.sampled_from((0.1, 0.4, 0.5, 0.6, 0.9)))
    return rng.random((height, width)) < share


def coco_fill(rings: list[NDArray[np.int64]], height: int, width: int) -> Mask:
    """pycocotools' own mask of polygons: each filled by the even-odd rule, then their union."""
    if not rings:
        return np.zeros((height, width), np.bool_)
    encoded = coco_mask.frPyObjects([ring.ravel().astype(float).tolist() for ring in rings], height, width)
    return coco_mask.decode(coco_mask.merge(encoded)).astype(np.bool_)


def test_one_pixel_is_its_square_clockwise_from_below() -> None:
    assert flat(drawn("...", "..#")) == [[[2, 2, 2, 1, 3, 1, 3, 2]]]


def test_a_mask_without_pixels_has_no_parts() -> None:
    assert polygons_of_counts((3, 4), ["<", encode_rle(np.ones((3, 4), np.bool_))])[0] == ()
    assert polygons_of_counts((3, 4), []) == []
    assert polygons_of_counts((0, 0), [""]) == [()]


def test_a_full_mask_is_the_image() -> None:
    assert flat(np.ones((2, 3), np.bool_)) == [[[0, 2, 0, 0, 3, 0, 3, 2]]]


def test_a_hole_runs_the_other_way_round() -> None:
    assert flat(drawn("###", "#.#", "###")) == [[[0, 3, 0, 0, 3, 0, 3, 3], [1, 1, 1, 2, 2, 2, 2, 1]]]


def test_pixels_that_touch_at_a_point_are_two_parts() -> None:
    assert flat(drawn("#.", ".#")) == [[[0, 1, 0, 0, 1, 0, 1, 1]], [[1, 2, 1, 1, 2, 1, 2, 2]]]
    assert flat(drawn(".#", "#.")) == [[[0, 2, 0, 1, 1, 1, 1, 2]], [[1, 1, 1, 0, 2, 0, 2, 1]]]


def test_holes_that_touch_at_a_point_are_two_holes() -> None:
    (part,) = polygons_of_mask(drawn("####", "#.##", "##.#", "####"))
    assert [len(ring) for ring in part.rings] == [4, 4, 4]


def test_an_outline_that_would_touch_itself_becomes_an_exterior_and_a_hole() -> None:
    (part,) = polygons_of_mask(drawn("###", "#.#", "##."))
    assert part.to_flat() == [[0, 3, 0, 0, 3, 0, 3, 2, 2, 2, 2, 3], [1, 1, 1, 2, 2, 2, 2, 1]]


def test_a_part_inside_a_hole_is_a_part_and_the_hole_belongs_to_the_part_around_it() -> None:
    parts = polygons_of_mask(drawn("#####", "#...#", "#.#.#", "#...#", "#####"))
    assert [(len(part.holes), part.exterior[0].tolist()) for part in parts] == [(1, [0, 5]), (0, [2, 3])]


def test_several_masks_keep_their_order() -> None:
    first, second, empty = drawn("#.", ".."), drawn("..", "##"), drawn("..", "..")
    found = polygons_of_counts((2, 2), [encode_rle(mask) for mask in (first, empty, second)])
    for parts, mask in zip(found, (first, empty, second), strict=True):
        np.testing.assert_array_equal(coco_fill([bridged(part) for part in parts], 2, 2), mask)


def test_runs_of_no_pixels_do_not_matter() -> None:
    counts = encode_counts(np.array([0, 0, 1, 1, 0, 1, 1, 0]))
    assert polygons_of_counts((4, 1), [counts])[0][0].to_flat() == [[0, 3, 0, 1, 1, 1, 1, 3]]


def test_damaged_run_lengths_are_refused() -> None:
    with pytest.raises(DamagedMask, match="covers 5 pixels"):
        polygons_of_counts((2, 3), ["5"])


@settings(deadline=None)
@given(masks())
def test_pycocotools_fills_the_bridged_parts_to_the_same_mask(mask: Mask) -> None:
    parts = polygons_of_mask(mask)
    height, width = mask.shape
    np.testing.assert_array_equal(coco_fill([bridged(part) for part in parts], height, width), mask)
    np.testing.assert_array_equal(coco_fill([bridged_parts(parts)] if parts else [], height, width), mask)


@settings(deadline=None)
@given(masks())
def test_parts_are_the_connected_components_and_holes_are_inside_them(mask: Mask) -> None:
    parts, (height, width) = polygons_of_mask(mask), mask.shape
    assert len(parts) == ndimage.label(mask)[1]
    for part in parts:
        outside = coco_fill([part.exterior], height, width)
        holes = coco_fill(list(part.holes), height, width)
        assert not (holes & ~outside).any()
        assert ndimage.label(outside & ~holes)[1] == 1


@settings(deadline=None)
@given(masks())
def test_no_ring_touches_itself_and_all_edges_go_along_pixels(mask: Mask) -> None:
    for part in polygons_of_mask(mask):
        for ring in part.rings:
            assert len(np.unique(ring, axis=0)) == len(ring)
            steps = np.diff(ring, axis=0, append=ring[:1])
            assert ((steps == 0).sum(axis=1) == 1).all()
            assert (np.roll(steps, 1, axis=0) * steps == 0).all()  # every point is a corner


@settings(deadline=None)
@given(masks())
def test_exteriors_go_clockwise_on_the_screen_and_holes_the_other_way(mask: Mask) -> None:
    for part in polygons_of_mask(mask):
        assert [_signed_area(ring) > 0 for ring in part.rings] == [True] + [False] * len(part.holes)
        assert sum(map(_signed_area, part.rings)) == coco_fill([bridged(part)], *mask.shape).sum()


def test_outlines_are_those_of_opencv_up_to_its_pixel_centres() -> None:
    """OpenCV's contours go through pixel centres and join at points: compared on a mask without such points."""
    rows, columns = np.ogrid[:375, :500]
    distance = (rows - 180) ** 2 + (columns - 260) ** 2
    mask = np.asarray(((distance < 150**2) & (distance > 60**2)) | (distance < 20**2))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [ring for part in polygons_of_mask(mask) for ring in part.rings]
    assert len(rings) == len(contours) == 3
    assert sorted(len(part.holes) for part in polygons_of_mask(mask)) == [0, 1]


def _signed_area(ring: NDArray[np.int64]) -> int:
    return sum(int(x1 * y2 - x2 * y1) for (x1, y1), (x2, y2) in pairwise([*ring, ring[0]])) // 2


def _distance(point: NDArray[np.int64], tail: NDArray[np.int64], head: NDArray[np.int64]) -> float:
    edge, to_point = (head - tail).astype(float), (point - tail).astype(float)
    along = min(1.0, max(0.0, float(edge @ to_point) / max(float(edge @ edge), 1.0)))
    return float(((to_point - along * edge) ** 2).sum())


def _kept(ring: NDArray[np.int64], tolerance: float) -> list[int]:
    """Douglas and Peucker's recursion as in the paper, from the first point round to itself."""
    closed, kept = np.concatenate((ring, ring[:1])), {0}

    def divide(first: int, last: int, is_forced: bool) -> None:
        distances = [_distance(closed[i], closed[first], closed[last]) for i in range(first + 1, last)]
        if distances and (is_forced or max(distances) > tolerance**2):
            farthest = first + 1 + int(np.argmax(distances))
            kept.add(farthest)
            divide(first, farthest, False)
            divide(farthest, last, False)

    divide(0, len(ring), True)
    return sorted(kept)


@settings(deadline=None, max_examples=60)
@given(masks(20), st.sampled_from((0.5, 1.0, 2.5)))
def test_simplified_rings_keep_the_points_of_the_recursion(mask: Mask, tolerance: float) -> None:
    for part, simple in zip(polygons_of_mask(mask), polygons_of_mask(mask, tolerance), strict=True):
        for ring, fewer in zip(part.rings, simple.rings, strict=True):
            expected = _kept(ring, tolerance)
            if len(expected) >= 3:
                np.testing.assert_array_equal(fewer, ring[expected])
            assert len(fewer) >= 3


def test_simplifying_without_bounds_leaves_three_points_or_four_where_two_are_as_far() -> None:
    (part,) = polygons_of_mask(np.ones((5, 7), np.bool_), 1000.0)
    assert len(part.exterior) == 4
    (part,) = polygons_of_mask(drawn("##...", "#####", "###.."), 1000.0)
    assert len(part.exterior) == 3


def test_bridges_start_at_the_nearest_point() -> None:
    (part,) = polygons_of_mask(drawn("####", "#.##", "####"))
    expected = [[0, 3], [0, 0], [1, 1], [1, 2], [2, 2], [2, 1], [1, 1], [0, 0], [4, 0], [4, 3]]
    assert bridged(part).tolist() == expected
    assert bridged(Part(part.exterior)).tolist() == part.exterior.tolist()
    assert bridged_parts(()).shape == (0, 2)
