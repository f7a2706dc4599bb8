"""Labels stand at their objects, inside the image, and never cover each other."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solo_results.placing import Anchors, Place, find_anchors, place_labels

HW = (200, 300)
SIZE = (60, 14)
SPACE = 2


def _at(x: int, y: int, width: int = 100, height: int = 60) -> Anchors:
    return find_anchors(np.ones((height, width), bool), x, y)


def _box(place: Place, size: tuple[int, int] = SIZE) -> tuple[int, int, int, int]:
    return place.left, place.top, place.left + size[0], place.top + size[1]


def _share(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_anchors_are_points_of_the_mask() -> None:
    mask = np.array([[0, 0, 1, 0], [1, 1, 1, 1], [0, 1, 0, 0]], bool)
    found = find_anchors(mask, 10, 20)
    assert (found.top, found.bottom, found.left, found.right) == ((12, 20), (11, 22), (10, 21), (13, 21))
    assert found.box_xywh == (10, 20, 4, 3)
    assert all(mask[y - 20, x - 10] for x, y in found.points)


def test_a_mask_without_pixels_is_labelled_at_the_corner_of_its_box() -> None:
    assert set(find_anchors(np.zeros((0, 0), bool), 5, 6).points) == {(5, 6)}


def test_a_label_stands_on_top_of_its_object() -> None:
    (place,) = place_labels([_at(100, 100)], [SIZE], HW, SPACE)
    assert place == Place(150 - 30, 100 - SPACE - 14, None)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (200, 0), (0, 140), (200, 140)])
def test_a_label_of_an_object_at_the_border_is_inside_the_image(x: int, y: int) -> None:
    (place,) = place_labels([_at(x, y)], [SIZE], HW, SPACE)
    assert place is not None
    left, top, right, bottom = _box(place)
    assert left >= 0
    assert top >= 0
    assert right <= HW[1]
    assert bottom <= HW[0]


def test_the_labels_of_two_objects_at_one_place_are_beside_each_other() -> None:
    first, second = place_labels([_at(100, 100), _at(100, 100)], [SIZE, SIZE], HW, SPACE)
    assert first is not None
    assert second is not None
    assert not _share(_box(first), _box(second))


def test_a_label_does_not_hide_a_small_object() -> None:
    small = _at(140, 88, 8, 8)  # on top of the large one, where its label would stand
    large, _ = place_labels([_at(100, 100), small], [SIZE, SIZE], HW, SPACE)
    assert large is not None
    assert not _share(_box(large), (140, 88, 148, 96))


def test_a_label_that_is_away_from_its_object_has_a_leader_to_a_point_of_it() -> None:
    crowd = [_at(150, 100, 3, 3) for _ in range(12)]
    places = [place for place in place_labels(crowd, [SIZE] * 12, HW, SPACE) if place is not None]
    led = [place for place in places if place.leader_to is not None]
    assert led
    assert all(place.leader_to in crowd[0].points for place in led)
    near = [place for place in places if place.leader_to is None]
    assert all(abs(place.top - 101) <= 3 * SIZE[1] for place in near)


def test_without_a_free_place_the_best_labels_stay_and_the_others_are_left_out() -> None:
    places = place_labels([_at(0, 0, 40, 20)] * 30, [(40, 14)] * 30, (20, 45), SPACE)
    assert places[0] is not None
    assert places.count(None) >= 28


def test_labels_cover_at_most_a_third_of_a_small_image() -> None:
    places = place_labels(
        [_at(x, y, 10, 10) for x in range(0, 190, 20) for y in range(0, 90, 20)], [(60, 14)] * 50, (100, 200), 2
    )
    assert 0.2 <= sum(place is not None for place in places) * 60 * 14 / (100 * 200) <= 0.3


def test_a_label_is_left_out_rather_than_far_away() -> None:
    hw = (1000, 1000)
    crowd = [_at(500, 500, 3, 3) for _ in range(150)]
    places = place_labels(crowd, [SIZE] * 150, hw, SPACE)
    assert None in places
    away = [
        max(place.left - 502, 500 - place.left - 60, place.top - 502, 500 - place.top - 14) for place in places if place
    ]
    assert max(away) <= 8 * SIZE[1]


@pytest.mark.parametrize("hw", [(1, 1), (5, 400), (400, 5)])
def test_a_label_larger_than_the_image_starts_at_its_corner(hw: tuple[int, int]) -> None:
    (place,) = place_labels([find_anchors(np.ones((1, 1), bool), 0, 0)], [(60, 14)], hw, SPACE)
    assert place is not None
    assert place.left == 0 or hw[1] > 60
    assert place.top == 0 or hw[0] > 14


BOXES = st.lists(
    st.tuples(st.integers(0, 280), st.integers(0, 180), st.integers(1, 120), st.integers(1, 90), st.integers(20, 90)),
    max_size=40,
)


@given(BOXES)
def test_no_label_covers_another_and_all_are_inside_the_image(found: list[tuple[int, int, int, int, int]]) -> None:
    anchors = [_at(x, y, min(w, 300 - x), min(h, 200 - y)) for x, y, w, h, _ in found]
    sizes = [(width, 14) for *_, width in found]
    pairs = [(place, size) for place, size in zip(place_labels(anchors, sizes, HW, SPACE), sizes, strict=True)]
    boxes = [_box(place, size) for place, size in pairs if place is not None]
    assert not any(_share(*pair) for pair in itertools.combinations(boxes, 2))
    assert all(left >= 0 and top >= 0 and right <= 300 and bottom <= 200 for left, top, right, bottom in boxes)
    assert not pairs or pairs[0][0] is not None
