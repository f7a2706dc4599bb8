"""Encodings of pycocotools are decoded to the masks that they were made from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from solo_server.rle import decode_rle
from solo_server.types import Rle


def _check(mask: NDArray[np.bool_]) -> None:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    height, width = mask.shape
    assert np.array_equal(decode_rle(Rle((height, width), encoded["counts"].decode())), mask)


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("hw", [(1, 1), (1, 9), (7, 1), (5, 8), (300, 400)])
def test_a_mask_of_one_value_is_decoded(hw: tuple[int, int], value: bool) -> None:
    _check(np.full(hw, value))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_random_masks_are_decoded(height: int, width: int, share: float, seed: int) -> None:
    _check(np.random.default_rng(seed).random((height, width)) < share)


def test_long_runs_and_large_differences_are_decoded() -> None:
    mask = np.zeros((900, 1200), bool)
    mask[13:700, 100] = True
    mask[3, 500:1100] = True
    _check(mask)
