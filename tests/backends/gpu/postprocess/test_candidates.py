"""Candidates, listed cells and listed axes of the device path are those of the CPU path, number by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_models.spec import PostprocessSpec
from solo_server.backends.cpu.postprocess import find_candidates
from solo_server.backends.gpu.postprocess import batch as structs
from solo_server.types import Float32
from support.gpu.batch_memory import batch_of, grid_sizes, settings_bytes, structs_of
from support.gpu.emulator import Emulator, uninitialised

SETTINGS = PostprocessSpec()
CANDIDATES = ("candidate_places", "candidate_labels", "candidate_scores")
UNTOUCHED = uninitialised(1, np.int32)[0]


@dataclass(frozen=True)
class Found:
    """What the kernels wrote."""

    arrays: dict[str, NDArray[Any]]
    counts: list[Any]


def find(
    scores: Float32,
    grids: tuple[int, ...],
    settings: Sequence[PostprocessSpec],
    classes: Sequence[tuple[int, ...] | None],
) -> Found:
    """scores: `(N, K, C)`; settings, classes: of each image."""
    images, cells, labels = scores.shape
    enabled = np.zeros((images, labels), np.uint8)
    for row, chosen in zip(enabled, classes, strict=True):
        row[slice(None) if chosen is None else list(chosen)] = 1
    of_cells = {name: uninitialised((images, cells), np.uint32) for name in ("cell_counts", "cell_offsets")}
    of_cells |= {name: uninitialised((images, cells), np.int32) for name in ("cell_places", "cell_list")}
    types = (np.int32, np.int32, np.float32)
    found = {n: uninitialised((images, cells * labels), t) for n, t in zip(CANDIDATES, types, strict=True)}
    counts = uninitialised((images, 112), np.uint8)
    axes = uninitialised((images, 2 * sum(grids)), np.int32)
    given = {"scores": scores, "enabled_classes": enabled, "settings": settings_bytes(settings)}
    arrays = {**given, **of_cells, **found, "counts": counts, "axis_list": axes}
    sizes = {"images": images, "classes": labels, **grid_sizes(grids, (8,) * len(grids))}
    batch, emulator = batch_of(sizes, arrays), Emulator()
    warps = (-(-cells // 8), images)
    emulator.launch("count_candidates", warps, 256, batch)
    emulator.launch("scan_candidates", images, 1024, batch)
    emulator.launch("write_candidates", warps, 256, batch)
    emulator.launch("list_axes", images, 256, batch)
    return Found(arrays, structs_of(counts, structs.Counts))


def check(
    scores: Float32,
    grids: tuple[int, ...],
    settings: Sequence[PostprocessSpec],
    classes: Sequence[tuple[int, ...] | None],
) -> list[int]:
    """Compare with the CPU path; returns how many candidates each image has."""
    found = find(scores, grids, settings, classes)
    numbers = []
    for p, (one, chosen) in enumerate(zip(settings, classes, strict=True)):
        expected = find_candidates(scores[p], one, chosen)
        cells, places = np.unique(expected.cells, return_inverse=True)
        counts = found.counts[p]
        n = len(expected.cells)
        assert (counts.candidates, counts.cells) == (n, len(cells))
        for name, values in zip(CANDIDATES, (places, expected.labels, expected.scores), strict=True):
            np.testing.assert_array_equal(found.arrays[name][p, :n], values)
            assert (found.arrays[name][p, n:].view(np.int32) == UNTOUCHED).all(), name
        np.testing.assert_array_equal(found.arrays["cell_list"][p, : len(cells)], cells)
        np.testing.assert_array_equal(found.arrays["cell_places"][p, cells], np.arange(len(cells)))
        of_cell = np.bincount(expected.cells, minlength=scores.shape[1])
        np.testing.assert_array_equal(found.arrays["cell_counts"][p], of_cell)
        np.testing.assert_array_equal(found.arrays["cell_offsets"][p], np.cumsum(of_cell) - of_cell)
        check_levels(found, p, cells, grids)
        numbers.append(n)
    return numbers


def check_levels(found: Found, p: int, cells: NDArray[np.int64], grids: tuple[int, ...]) -> None:
    """Where levels begin in the list of cells; which columns and rows of each level's grid occur."""
    first_cells = np.cumsum([0, *np.square(grids)])
    firsts = np.searchsorted(cells, first_cells).tolist()
    assert list(found.counts[p].level_first) == firsts + [len(cells)] * (9 - len(firsts))
    axes: list[int] = []
    axis_first = []
    for level, grid in enumerate(grids):
        within = cells[firsts[level] : firsts[level + 1]] - first_cells[level]
        for indices in (within % grid, within // grid):
            axis_first.append(len(axes))
            axes += np.unique(indices).tolist()
    assert list(found.counts[p].axis_first) == axis_first + [len(axes)] * (17 - len(axis_first))
    assert found.arrays["axis_list"][p, : len(axes)].tolist() == axes


def random_scores(shape: tuple[int, int, int], seed: int = 0) -> Float32:
    """Most below the threshold, in steps of 1/64, so that some equal a threshold of that form."""
    scores = np.random.default_rng(seed).random(shape) ** 8
    return (np.round(scores * 64) / 64).astype(np.float32)


@pytest.mark.parametrize("classes", [1, 3, 32, 33, 80])
@pytest.mark.parametrize("grids", [(5, 3), (1,), (2, 1, 3, 2, 1, 1, 1, 1)])
def test_candidates_are_those_of_the_cpu_path(grids: tuple[int, ...], classes: int) -> None:
    scores = random_scores((1, sum(g * g for g in grids), classes), seed=classes)
    check(scores, grids, [SETTINGS], [None])


def test_more_cells_than_one_round_of_the_scan_are_listed() -> None:
    (n,) = check(random_scores((1, 33 * 33 + 64, 3)), (33, 8), [SETTINGS], [None])
    assert n > 500


def test_no_score_above_the_threshold_is_no_candidate() -> None:
    assert check(np.zeros((2, 34, 5), np.float32), (5, 3), [SETTINGS] * 2, [None] * 2) == [0, 0]


def test_scores_that_equal_the_candidate_threshold_are_none() -> None:
    scores = np.full((1, 34, 5), SETTINGS.candidate_threshold, np.float32)
    assert check(scores, (5, 3), [SETTINGS], [None]) == [0]


def test_scores_that_equal_a_higher_score_threshold_are_candidates() -> None:
    settings = replace(SETTINGS, score_threshold=0.3)
    assert check(np.full((1, 34, 5), 0.3, np.float32), (5, 3), [settings], [None]) == [170]


def test_scores_that_are_no_numbers_are_no_candidates() -> None:
    assert check(np.full((1, 34, 5), np.nan, np.float32), (5, 3), [SETTINGS], [None]) == [0]


def test_one_candidate_of_the_last_class_of_the_last_cell_is_found() -> None:
    scores = np.zeros((1, 34, 33), np.float32)
    scores[0, 33, 32] = 0.5
    assert check(scores, (5, 3), [SETTINGS], [None]) == [1]


def test_everything_may_be_a_candidate() -> None:
    assert check(np.full((1, 34, 40), 0.5, np.float32), (5, 3), [SETTINGS], [None]) == [34 * 40]


def test_each_image_of_a_batch_has_its_own_settings_and_classes() -> None:
    settings = [SETTINGS, replace(SETTINGS, score_threshold=0.25), replace(SETTINGS, candidate_threshold=0.0)]
    numbers = check(random_scores((3, 34, 37)), (5, 3), settings, [None, (36, 2, 17), ()])
    assert numbers[0] > numbers[1] > numbers[2] == 0


def test_axes_of_a_grid_above_256_are_listed() -> None:
    grid, cells = 300, np.array([0, 5, 299, 300 * 255 + 256, 300 * 256 + 5, 300 * 299 + 298], np.int32)
    counts, axes = uninitialised((1, 112), np.uint8), uninitialised((1, 2 * grid), np.int32)
    counts.view(np.int32)[0, 2:11] = [0] + [len(cells)] * 8
    arrays = {"cell_list": cells, "counts": counts, "axis_list": axes}
    batch = batch_of({"images": 1, **grid_sizes((grid,), (8,))}, arrays)
    Emulator().launch("list_axes", 1, 256, batch)
    columns, rows = [0, 5, 256, 298, 299], [0, 255, 256, 299]
    assert list(structs_of(counts, structs.Counts)[0].axis_first[:3]) == [0, 5, 9]
    assert axes[0, :9].tolist() == columns + rows
