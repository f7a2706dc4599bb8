"""Bits, IoU and both suppressions against hand-made masks and the formulas written out."""

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_models.spec import PostprocessSpec
from solo_server.postprocess.nms import greedy_keep, matrix_decay, pack, pairwise_ious, suppress
from solo_server.types import MaskedCandidates


def _found(masks: NDArray[np.bool_], labels: list[int], scores: list[float]) -> MaskedCandidates:
    areas = masks.sum((1, 2), dtype=np.int64)
    return MaskedCandidates(np.arange(len(masks)), np.array(labels), np.array(scores, np.float32), areas, pack(masks))


def _squares() -> NDArray[np.bool_]:
    """A 4x4 square, its twin, one that shares half of it, and one elsewhere, in 9x13 pixels."""
    masks = np.zeros((4, 9, 13), bool)
    masks[0, 0:4, 0:4] = masks[1, 0:4, 0:4] = masks[2, 0:4, 2:6] = masks[3, 5:8, 9:12] = True
    return masks


def test_ious_of_hand_made_squares() -> None:
    masks = _squares()
    ious = pairwise_ious(pack(masks), masks.sum((1, 2), dtype=np.int64))
    expected = np.zeros((4, 4))
    expected[0, 1], expected[0, 2], expected[1, 2] = 1, 8 / 24, 8 / 24
    np.testing.assert_allclose(ious, expected, rtol=1e-6)


@pytest.mark.parametrize("pixels", [1, 7, 8, 63, 64, 65, 200])
def test_bits_hold_every_pixel_of_any_size(pixels: int) -> None:
    masks = np.random.default_rng(pixels).random((5, 1, pixels)) < 0.5
    assert np.array_equal(np.bitwise_count(pack(masks)).sum(1), masks.sum((1, 2)))


def test_ious_of_no_masks_are_empty() -> None:
    assert pairwise_ious(pack(np.zeros((0, 3, 3), bool)), np.zeros(0, np.int64)).shape == (0, 0)


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_matrix_decay_is_the_formula(kernel: str) -> None:
    rng = np.random.default_rng(3)
    ious = np.triu(rng.random((6, 6)).astype(np.float32) * 0.9, 1)
    settings = PostprocessSpec(decay_kernel=kernel)  # type: ignore[arg-type]  # parametrised
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
    np.testing.assert_allclose(matrix_decay(ious, settings), expected, rtol=1e-5)


def test_linear_decay_of_exact_twins_is_finite() -> None:
    decay = matrix_decay(np.triu(np.ones((3, 3), np.float32), 1), PostprocessSpec(decay_kernel="linear"))
    assert decay[0] == 1
    assert (decay[1:] == 0).all()


def test_greedy_keeps_what_only_a_suppressed_mask_overlaps() -> None:
    ious = np.zeros((3, 3), np.float32)
    ious[0, 1] = ious[1, 2] = 0.9
    assert greedy_keep(ious, 0.5).tolist() == [1, 0, 1]


def test_other_labels_never_suppress() -> None:
    found = _found(_squares(), [0, 1, 2, 0], [0.9, 0.8, 0.7, 0.6])
    for method in ("matrix", "mask", "none"):
        settings = PostprocessSpec(nms=method)  # type: ignore[arg-type]  # a literal
        np.testing.assert_array_equal(suppress(found, settings), found.scores)


def test_same_label_twins_are_suppressed_and_strangers_are_not() -> None:
    found = _found(_squares(), [5, 5, 5, 5], [0.9, 0.8, 0.7, 0.6])
    matrix = suppress(found, PostprocessSpec())
    assert matrix[0] == np.float32(0.9)
    assert matrix[1] == pytest.approx(0.8 * np.exp(-2), rel=1e-5)
    assert matrix[3] == np.float32(0.6)
    assert suppress(found, PostprocessSpec(nms="mask")).tolist() == pytest.approx([0.9, 0, 0.7, 0.6])
