"""Candidates are every (cell, class) above the threshold, in order of cell, then class; NMS is per class."""

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_models.spec import PostprocessSpec
from solo_server.backends.cpu.postprocess import find_candidates, suppress
from solo_server.types import MaskedCandidates

SCORES = np.array([[0.1, 0.3, 0.0], [0.0, 0.1, 0.9], [0.05, 0.0, 0.0], [0.2, 0.6, 0.11]], np.float32)


def _pairs(
    scores: np.ndarray, settings: PostprocessSpec, classes: tuple[int, ...] | None = None
) -> list[tuple[int, int]]:
    found = find_candidates(scores, settings, classes)
    np.testing.assert_array_equal(found.scores, scores[found.cells, found.labels])
    return list(zip(found.cells.tolist(), found.labels.tolist(), strict=True))


def test_a_score_at_the_candidate_threshold_is_no_candidate() -> None:
    assert _pairs(SCORES, PostprocessSpec()) == [(0, 1), (1, 2), (3, 0), (3, 1), (3, 2)]


def test_a_score_at_a_higher_score_threshold_is_a_candidate() -> None:
    settings = PostprocessSpec(score_threshold=float(np.float32(0.3)))
    assert _pairs(SCORES, settings) == [(0, 1), (1, 2), (3, 1)]


def test_only_requested_classes_are_candidates() -> None:
    assert _pairs(SCORES, PostprocessSpec(), (0, 2)) == [(1, 2), (3, 0), (3, 2)]
    assert _pairs(SCORES, PostprocessSpec(), ()) == []


@pytest.mark.parametrize("shape", [(0, 3), (5, 1), (7, 80)])
def test_no_score_above_the_threshold_gives_no_candidates(shape: tuple[int, int]) -> None:
    assert _pairs(np.zeros(shape, np.float32), PostprocessSpec()) == []


def test_random_scores_are_found_as_numpy_finds_them() -> None:
    scores = np.random.default_rng(0).random((500, 7), np.float32) ** 4
    cells, labels = np.nonzero(scores > np.float32(0.1))
    assert _pairs(scores, PostprocessSpec()) == list(zip(cells.tolist(), labels.tolist(), strict=True))


def _masked(masks: NDArray[np.bool_], labels: list[int], scores: list[float]) -> MaskedCandidates:
    n, height, width = masks.shape
    padded = np.zeros((n, height, -(-width // 64) * 64), bool)
    padded[:, :, :width] = masks
    bits = np.packbits(padded, axis=2, bitorder="little").view(np.uint64)
    boxes = np.tile(np.array([0, height, 0, width]), (n, 1))
    areas = masks.sum((1, 2), dtype=np.int64)
    return MaskedCandidates(np.arange(n), np.array(labels), np.array(scores, np.float32), areas, bits, boxes)


def _squares() -> NDArray[np.bool_]:
    """Two equal 4x4 squares, one that overlaps half of them, and a rectangle elsewhere, in 9x13 pixels."""
    masks = np.zeros((4, 9, 13), bool)
    masks[0, 0:4, 0:4] = masks[1, 0:4, 0:4] = masks[2, 0:4, 2:6] = masks[3, 5:8, 9:12] = True
    return masks


def test_masks_of_other_labels_never_suppress() -> None:
    candidates = _masked(_squares(), [0, 1, 2, 0], [0.9, 0.8, 0.7, 0.6])
    for method in ("matrix", "mask", "none"):
        settings = PostprocessSpec(nms=method)  # type: ignore[arg-type]  # a literal
        np.testing.assert_array_equal(suppress(candidates, settings), candidates.scores)


def test_equal_masks_of_one_label_are_suppressed_and_disjoint_ones_are_not() -> None:
    candidates = _masked(_squares(), [5, 5, 5, 5], [0.9, 0.8, 0.7, 0.6])
    matrix = suppress(candidates, PostprocessSpec())
    assert matrix[0] == np.float32(0.9)
    assert matrix[1] == pytest.approx(0.8 * np.exp(-2), rel=1e-5)
    assert matrix[3] == np.float32(0.6)
    assert suppress(candidates, PostprocessSpec(nms="mask")).tolist() == pytest.approx([0.9, 0, 0.7, 0.6])
