"""Every (cell, class) above the threshold, in order of cell, then class."""

import numpy as np
import pytest
from solo_models.spec import PostprocessSpec
from solo_server.backends.cpu.postprocess import find_candidates

SCORES = np.array([[0.1, 0.3, 0.0], [0.0, 0.1, 0.9], [0.05, 0.0, 0.0], [0.2, 0.6, 0.11]], np.float32)


def _pairs(
    scores: np.ndarray, settings: PostprocessSpec, classes: tuple[int, ...] | None = None
) -> list[tuple[int, int]]:
    found = find_candidates(scores, settings, classes)
    np.testing.assert_array_equal(found.scores, scores[found.cells, found.labels])
    return list(zip(found.cells.tolist(), found.labels.tolist(), strict=True))


def test_scores_at_the_candidate_threshold_are_none() -> None:
    assert _pairs(SCORES, PostprocessSpec()) == [(0, 1), (1, 2), (3, 0), (3, 1), (3, 2)]


def test_scores_at_a_higher_score_threshold_stay() -> None:
    settings = PostprocessSpec(score_threshold=float(np.float32(0.3)))
    assert _pairs(SCORES, settings) == [(0, 1), (1, 2), (3, 1)]


def test_other_classes_than_the_wanted_are_none() -> None:
    assert _pairs(SCORES, PostprocessSpec(), (0, 2)) == [(1, 2), (3, 0), (3, 2)]
    assert _pairs(SCORES, PostprocessSpec(), ()) == []


@pytest.mark.parametrize("shape", [(0, 3), (5, 1), (7, 80)])
def test_nothing_above_is_nothing_found(shape: tuple[int, int]) -> None:
    assert _pairs(np.zeros(shape, np.float32), PostprocessSpec()) == []


def test_random_scores_are_found_as_numpy_finds_them() -> None:
    scores = np.random.default_rng(0).random((500, 7), np.float32) ** 4
    cells, labels = np.nonzero(scores > np.float32(0.1))
    assert _pairs(scores, PostprocessSpec()) == list(zip(cells.tolist(), labels.tolist(), strict=True))
