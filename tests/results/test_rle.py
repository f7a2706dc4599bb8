"""Compressed run lengths: against values worked out by hand, then against pycocotools."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from solo_results.errors import DamagedMask, NumpyMissing
from solo_results.rle import decode_all, decode_counts, decode_rle, encode_rle
from solo_results.types import Instance, RleMask


@pytest.mark.parametrize(
    ("counts", "runs"),
    [
        ("", []),
        ("6", [6]),
        ("024", [0, 2, 4]),
        ("o0", [31]),  # more than 4 bits needs a second group: its 16 would be read as the sign
        ("P1", [32]),
        ("PP1", [1024]),
        ("1231", [1, 2, 3, 3]),  # the fourth is a difference to the second
        ("123O1", [1, 2, 3, 1, 4]),  # O is -1
    ],
)
def test_counts_decode_as_worked_out_by_hand(counts: str, runs: list[int]) -> None:
    assert decode_counts(counts).tolist() == runs


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        ("12 3", "illegal character ' ' at position 2"),
        ("1/", "illegal character '/'"),
        ("1p", "illegal character 'p'"),
        ("1\u00e9", "illegal character"),
        ("12P", "ends inside a number"),
        ("P" * 8 + "0", "more than 40 bits"),
        ("O", "negative run, number 0"),
        ("111N", "negative run, number 3"),
        ("ooooooo?" * 6, "too long run, number 5"),
    ],
)
def test_damaged_counts_are_refused_with_the_place(counts: str, complaint: str) -> None:
    with pytest.raises(DamagedMask, match=complaint):
        decode_counts(counts)


def test_runs_go_down_the_columns() -> None:
    assert decode_rle(RleMask((2, 3), "132")).tolist() == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize(("size", "counts"), [((2, 3), "5"), ((2, 3), "7"), ((2, 3), ""), ((-2, -3), "6")])
def test_counts_that_do_not_fill_the_size_are_refused(size: tuple[int, int], counts: str) -> None:
    with pytest.raises(DamagedMask, match="covers"):
        decode_rle(RleMask(size, counts))


def test_masks_of_no_counts_keep_their_height_and_width() -> None:
    masks = decode_all((2, 3), [])
    assert masks.shape == (0, 2, 3)
    assert masks.dtype == np.dtype(bool)


def test_mask_of_no_pixels_is_empty() -> None:
    assert decode_rle(RleMask((0, 5), "")).shape == (0, 5)


def test_masks_lie_in_c_order() -> None:
    assert decode_all((2, 3), ["132", "024"]).flags.c_contiguous


def test_missing_numpy_is_reported_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.delitem(sys.modules, "solo_results.rle")
    with pytest.raises(NumpyMissing, match="pip install numpy"):
        Instance("person", 0, 0.5, (0, 0, 0, 0), 0, RleMask((1, 1), "1")).mask_array()


def _pixel(height: int, width: int, row: int, column: int) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), np.bool_)
    mask[row, column] = True
    return mask


def _columns(height: int, width: int, *columns: int) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), np.bool_)
    mask[:, columns] = True
    return mask


def _discs(height: int, width: int) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[:height, :width]
    ring = (rows - height / 2) ** 2 + (columns - width / 2) ** 2
    return np.asarray((ring < (height / 3) ** 2) & (ring > (height / 6) ** 2))


MASKS = {
    "empty": np.zeros((7, 5), np.bool_),
    "full": np.ones((7, 5), np.bool_),
    "one pixel of one": np.ones((1, 1), np.bool_),
    "first pixel": _pixel(7, 5, 0, 0),
    "last pixel": _pixel(7, 5, 6, 4),
    "inner pixel": _pixel(480, 641, 200, 333),
    "last column": _columns(7, 5, 4),
    "first and last column": _columns(601, 399, 0, 398),
    "one row": np.ones((1, 900), np.bool_),
    "ring": _discs(375, 500),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_masks_of_special_form_decode_as_pycocotools_encodes(mask: NDArray[np.bool_]) -> None:
    _check_against_pycocotools(mask)


def test_random_masks_decode_as_pycocotools_encodes() -> None:
    rng = np.random.default_rng(7)
    for _ in range(150):
        height, width = rng.integers(1, 90, 2)
        length = int(rng.integers(1, 12))
        blocks = rng.random((1 + height // length, width)) < rng.random()
        _check_against_pycocotools(np.repeat(blocks, length, axis=0)[:height])


def _check_against_pycocotools(mask: NDArray[np.bool_]) -> None:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    height, width = encoded["size"]
    counts = encoded["counts"].decode()
    np.testing.assert_array_equal(decode_rle(RleMask((height, width), counts)), mask)
    assert encode_rle(mask) == counts
