"""Bits of masks, IoU and both kinds of NMS against hand-made masks and the written formulas."""

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_server.backends.cpu.kernels.nms import (
    binarise,
    greedy_keep,
    matrix_decay,
    pairwise_ious,
    words_per_row,
)
from solo_server.backends.cpu.kernels.soft_masks import SPARE, padded_width


def _bits(masks: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """`(n, H, words)`, as `binarise` returns for boxes of the whole mask."""
    n, height, width = masks.shape
    bits, step = np.zeros((n, height, words_per_row(width)), np.uint64), padded_width(width)
    for mask, out in zip(masks, bits, strict=True):
        soft = np.zeros((height + SPARE, step), np.float32)
        soft[:height, :width] = np.where(mask, 0.75, 0.5)
        found = binarise(
            soft.ravel(), step, np.array([0, height, 0, width]), np.float32(0.5), out.shape[1] * 8, out.view(np.uint8).ravel()
        )  # fmt: skip
        assert found == (mask.sum(), 0.75 * mask.sum())
    return bits


def _boxes(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.tile(np.array([0, masks.shape[1], 0, masks.shape[2]]), (len(masks), 1))


def _areas(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    return masks.sum((1, 2), dtype=np.int64)


def _ious(masks: NDArray[np.bool_], labels: list[int] | None = None) -> NDArray[np.float32]:
    listed = np.array(labels or [0] * len(masks), np.int64)
    found: NDArray[np.float32] = pairwise_ious(_bits(masks), _boxes(masks), _areas(masks), listed)
    return found


def _squares() -> NDArray[np.bool_]:
    """Two equal 4x4 squares, one that overlaps half of them, and a rectangle elsewhere, in 9x13 pixels."""
    masks = np.zeros((4, 9, 13), bool)
    masks[0, 0:4, 0:4] = masks[1, 0:4, 0:4] = masks[2, 0:4, 2:6] = masks[3, 5:8, 9:12] = True
    return masks


def test_ious_of_hand_made_squares() -> None:
    expected = np.zeros((4, 4))
    expected[0, 1], expected[0, 2], expected[1, 2] = 1, 8 / 24, 8 / 24
    np.testing.assert_allclose(_ious(_squares()), expected, rtol=1e-6)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 63, 64, 65, 200])
def test_bits_hold_every_pixel_of_any_size(width: int) -> None:
    masks = np.random.default_rng(width).random((5, 3, width)) < 0.5
    bits = _bits(masks)
    assert np.array_equal(np.bitwise_count(bits).sum((1, 2)), masks.sum((1, 2)))
    unpacked = np.unpackbits(bits.view(np.uint8), axis=2, bitorder="little")[:, :, :width]
    assert np.array_equal(unpacked.astype(bool), masks)


@pytest.mark.parametrize("seed", range(4))
def test_ious_are_those_of_the_masks_whatever_the_boxes(seed: int) -> None:
    """Tight boxes give the same result as boxes of the whole mask."""
    rng = np.random.default_rng(seed)
    masks, boxes = np.zeros((12, 37, 141), bool), np.zeros((12, 4), np.int64)
    for mask, box in zip(masks, boxes, strict=True):
        (top, bottom), (left, right) = np.sort(rng.integers(0, 37, 2)), np.sort(rng.integers(0, 141, 2))
        box[:] = top, bottom + 1, left, right + 1
        mask[top : bottom + 1, left : right + 1] = rng.random((bottom + 1 - top, right + 1 - left)) < 0.7
        mask[top, left] = True
    flat = masks.reshape(12, -1).astype(int)
    shared, areas = flat @ flat.T, flat.sum(1)
    expected = np.triu(shared / (areas[:, None] + areas - shared), 1)
    labels = np.zeros(12, np.int64)
    np.testing.assert_allclose(pairwise_ious(_bits(masks), boxes, _areas(masks), labels), expected, rtol=1e-6)


def test_ious_of_no_masks_are_empty() -> None:
    assert _ious(np.zeros((0, 3, 3), bool)).shape == (0, 0)


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_matrix_decay_is_the_formula(kernel: str) -> None:
    rng = np.random.default_rng(3)
    ious = np.triu(rng.random((6, 6)).astype(np.float32) * 0.9, 1)
    expected = []
    for j in range(6):
        factors = [1.0]
        for i in range(j):
            comp = max((ious[k, i] for k in range(i)), default=0.0)
            if kernel == "gaussian":
                factors.append(np.exp(-2 * ious[i, j] ** 2) / np.exp(-2 * comp**2))
            else:
                factors.append((1 - ious[i, j]) / (1 - comp))
        expected.append(min(factors))
    np.testing.assert_allclose(matrix_decay(ious, kernel == "gaussian", 2.0), expected, rtol=1e-5)


def test_linear_decay_of_equal_masks_is_finite() -> None:
    decay = matrix_decay(np.triu(np.ones((3, 3), np.float32), 1), False, 2.0)
    assert decay[0] == 1
    assert (decay[1:] == 0).all()


def test_greedy_nms_keeps_a_mask_that_only_a_suppressed_one_overlaps() -> None:
    ious = np.zeros((3, 3), np.float32)
    ious[0, 1] = ious[1, 2] = 0.9
    assert greedy_keep(ious, np.float32(0.5)).tolist() == [1, 0, 1]
