"""Track ids: masks drawn by hand that move, cross, hide, leave and enter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from solo_results.rle import encode_rle
from solo_results.tracking import MAX_MISSED, Tracker, mask_iou, runs_of
from solo_results.types import Instance, RleMask

HW = (40, 100)


def _instance(mask: NDArray[np.bool_], class_id: int = 0) -> Instance:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (0, 0, 0, 0)
    if len(rows):
        box = (int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    height, width = mask.shape
    return Instance("thing", class_id, 0.9, box, int(mask.sum()), RleMask((height, width), encode_rle(mask)))


def _square(left: int, top: int = 10, class_id: int = 0, side: int = 10, hw: tuple[int, int] = HW) -> Instance:
    mask = np.zeros(hw, np.bool_)
    mask[top : top + side, max(0, left) : max(0, left + side)] = True
    return _instance(mask, class_id)


def _ids(frames: Sequence[Sequence[Instance]]) -> list[tuple[int, ...]]:
    tracker = Tracker()
    return [tracker.update(frame) for frame in frames]


def test_a_moving_object_keeps_its_id() -> None:
    assert _ids([[_square(3 * step)] for step in range(20)]) == [(1,)] * 20


def test_ids_do_not_depend_on_the_order_of_the_instances() -> None:
    assert _ids([[_square(0), _square(50)], [_square(51), _square(1)]]) == [(1, 2), (2, 1)]


def test_objects_that_pass_each_other_in_different_rows_keep_their_ids() -> None:
    frames = [[_square(2 * step, top=10), _square(60 - 2 * step, top=16)] for step in range(30)]
    assert _ids(frames) == [(1, 2)] * 30


def test_objects_of_two_classes_that_cross_keep_their_ids() -> None:
    frames = [[_square(2 * step), _square(60 - 2 * step, class_id=1)] for step in range(30)]
    assert _ids(frames) == [(1, 2)] * 30


def test_an_object_that_changes_its_class_is_another_one() -> None:
    assert _ids([[_square(0)], [_square(0, class_id=1)]]) == [(1,), (2,)]


@pytest.mark.parametrize(("hidden", "expected"), [(MAX_MISSED, 1), (MAX_MISSED + 1, 2)])
def test_an_object_is_found_again_after_a_few_hidden_frames(hidden: int, expected: int) -> None:
    ids = _ids([[_square(20)], *[[]] * hidden, [_square(22)]])
    assert ids == [(1,), *[()] * hidden, (expected,)]


def test_a_new_object_in_the_place_of_one_that_left_gets_a_new_id() -> None:
    leaving = [[_square(90 + 2 * step)] for step in range(4)]
    assert _ids([*leaving, *[[]] * (MAX_MISSED + 1), [_square(90)]])[-1] == (2,)


def test_an_entering_object_gets_the_next_id_and_disturbs_nobody() -> None:
    assert _ids([[_square(50)], [_square(0), _square(51)]]) == [(1,), (2, 1)]


def test_an_object_that_jumps_further_than_its_size_is_a_new_one() -> None:
    assert _ids([[_square(0)], [_square(11)]]) == [(1,), (2,)]


def test_the_best_sum_of_ious_wins_over_the_best_pair() -> None:
    before = [_square(10), _square(16)]
    after = [_square(14), _square(20)]  # 14 is nearer to 16, but then 20 and 10 share nothing
    assert _ids([before, after]) == [(1, 2), (1, 2)]


def test_frames_of_another_size_begin_new_tracks() -> None:
    assert _ids([[_square(0)], [_square(0, hw=(80, 200))]]) == [(1,), (2,)]


def test_frames_without_objects_have_no_ids() -> None:
    assert _ids([[], []]) == [(), ()]


def test_an_empty_mask_matches_nothing() -> None:
    empty = _instance(np.zeros(HW, np.bool_))
    assert _ids([[empty], [empty]]) == [(1,), (2,)]


def test_many_objects_in_random_order_keep_their_ids() -> None:
    shuffle = np.random.default_rng(0).permutation
    tracker, known = Tracker(), {}
    for step in range(10):
        order = [int(one) for one in shuffle(6)]
        ids = tracker.update([_square(15 * one + step // 2) for one in order])
        for one, number in zip(order, ids, strict=True):
            assert known.setdefault(one, number) == number
    assert sorted(known.values()) == [1, 2, 3, 4, 5, 6]


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_iou_is_that_of_pycocotools(seed: int, height: int, width: int) -> None:
    random = np.random.default_rng(seed)
    first, second = (random.random((height, width)) < random.random() for _ in range(2))
    encoded = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in (first, second)]
    expected = float(np.asarray(coco_mask.iou(encoded[:1], encoded[1:], [0]))[0, 0])
    assert mask_iou(runs_of(_instance(first)), runs_of(_instance(second))) == pytest.approx(expected, abs=1e-12)
