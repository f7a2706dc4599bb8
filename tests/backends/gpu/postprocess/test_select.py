"""The best candidates, their cells and the kept instances of the device path are those of the CPU path, bit by bit.

All of it is exact: scores are products of floats, rounded alike on both sides, and equal scores keep the order of candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_models.spec import ModelSpec, PostprocessSpec
from solo_server.backends.cpu.masks import Measures
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.postprocess import CpuPostprocessor, select
from solo_server.backends.gpu.postprocess import batch as structs
from solo_server.types import Candidates, Float32, Int64, MaskedCandidates
from support.gpu.batch_memory import batch_of, grid_sizes, settings_bytes, structs_of
from support.gpu.emulator import Emulator, uninitialised

GRIDS, STRIDES, CLASSES = (14, 9, 5), (8, 16, 32), 4
CELLS = sum(grid * grid for grid in GRIDS)
FIRST_CELLS = np.cumsum([0, *np.square(GRIDS)])
SETTINGS = PostprocessSpec()


@dataclass(frozen=True)
class Image:
    """Candidates, and the measures of their cells: areas `(cells,) int64`, totals `(cells,) float32`."""

    candidates: Candidates
    areas: Int64
    totals: Float32

    @property
    def cells(self) -> Int64:
        return np.unique(self.candidates.cells)


@dataclass(frozen=True)
class KnownMasks:
    """Stands for `CellMasks` where only measures are asked for."""

    image: Image

    def measure(self, cells: Int64) -> Measures:
        np.testing.assert_array_equal(cells, self.image.cells)
        maskness = (self.image.totals / np.maximum(self.image.areas, 1)).astype(np.float32)
        n = len(cells)
        return Measures(self.image.areas, maskness, np.zeros((n, 1, 1), np.uint64), np.zeros((n, 4), np.int64))


def image_of(numbers: Int64, scores: NDArray[np.float64], seed: int = 0) -> Image:
    """numbers: which (cell, class), rising. Areas run from half to 3.5 times the stride, some equal it."""
    random = np.random.default_rng(seed)
    cells = np.unique(numbers // CLASSES)
    strides = np.array(STRIDES)[np.searchsorted(FIRST_CELLS, cells, side="right") - 1]
    areas = strides * random.integers(1, 8, len(cells)) // 2
    totals = (areas * random.uniform(0.5, 1, len(cells))).astype(np.float32)
    return Image(Candidates(numbers // CLASSES, numbers % CLASSES, scores.astype(np.float32)), areas, totals)


def random_image(candidates: int, seed: int = 0) -> Image:
    random = np.random.default_rng(seed)
    numbers = np.sort(random.choice(CELLS * CLASSES, candidates, replace=False))
    return image_of(numbers, random.uniform(0.1, 1, candidates), seed)


def tied_image(candidates: int, seed: int = 0) -> Image:
    """Every score and every maskness is the same, so that order alone decides."""
    image = random_image(candidates, seed)
    scores = np.full(candidates, 0.5, np.float32)
    return replace(image, candidates=replace(image.candidates, scores=scores), totals=image.areas.astype(np.float32))


def memory_of(images: list[Image], best: int) -> dict[str, NDArray[Any]]:
    n, most = len(images), CELLS * CLASSES
    arrays: dict[str, NDArray[Any]] = {
        "cell_list": uninitialised((n, CELLS), np.int32),
        "cell_places": uninitialised((n, CELLS), np.int32),
        "candidate_places": uninitialised((n, most), np.int32),
        "candidate_labels": uninitialised((n, most), np.int32),
        "candidate_scores": uninitialised((n, most), np.float32),
        "areas": uninitialised((n, CELLS), np.int32),
        "totals": uninitialised((n, CELLS), np.float32),
        "counts": uninitialised((n, 112), np.uint8),
        "best_count": uninitialised(n, np.int32),
    }
    for name in ("best_rows", "best_labels", "best_areas", "best_candidates"):
        arrays[name] = uninitialised((n, best), np.int32)
    arrays["best_scores"] = uninitialised((n, best), np.float32)
    for p, image in enumerate(images):
        cells, places = np.unique(image.candidates.cells, return_inverse=True)
        arrays["cell_list"][p, : len(cells)] = cells
        arrays["areas"][p, : len(cells)] = image.areas
        arrays["totals"][p, : len(cells)] = image.totals
        for name, values in (
            ("places", places),
            ("labels", image.candidates.labels),
            ("scores", image.candidates.scores),
        ):
            arrays[f"candidate_{name}"][p, : len(places)] = values
        firsts = np.searchsorted(cells, FIRST_CELLS).tolist()
        arrays["counts"].view(np.int32)[p, :11] = [len(places), len(cells), *firsts, *[len(cells)] * (9 - len(firsts))]
    return arrays


def sizes_of(images: int, best: int) -> dict[str, Any]:
    return {"images": images, "classes": CLASSES, "max_best": best, **grid_sizes(GRIDS, STRIDES)}


def check_top(images: list[Image], best: int = 500) -> list[int]:
    """Compare the best of each image, then their list of cells; returns how many are best."""
    arrays, emulator = memory_of(images, best), Emulator()
    batch = batch_of(sizes_of(len(images), best), arrays)
    emulator.launch("select_top", len(images), 1024, batch)
    spec = ModelSpec("solo", "resnet18", ("a", "b", "c", "d"), GRIDS, (8, 16, 32), STRIDES)
    cpu, settings = CpuPostprocessor(spec, {}, Pool(1)), replace(SETTINGS, max_before_nms=best)
    expected = [cpu.measure(p.candidates, KnownMasks(p), settings) for p in images]  # type: ignore[arg-type]  # stands for CellMasks
    for p, (image, found) in enumerate(zip(images, expected, strict=True)):
        n = len(found.scores)
        assert arrays["best_count"][p] == n
        np.testing.assert_array_equal(arrays["best_scores"][p, :n], found.scores)
        np.testing.assert_array_equal(arrays["best_labels"][p, :n], found.labels)
        np.testing.assert_array_equal(arrays["best_areas"][p, :n], found.areas)
        np.testing.assert_array_equal(image.cells[arrays["best_rows"][p, :n]], found.cells)
        chosen = arrays["best_candidates"][p, :n]
        np.testing.assert_array_equal(image.candidates.cells[chosen], found.cells)
        np.testing.assert_array_equal(image.candidates.labels[chosen], found.labels)
    emulator.launch("list_top_cells", len(images), 1024, batch)
    for p, found in enumerate(expected):
        check_listed(arrays, p, found.cells)
    return [len(found.scores) for found in expected]


def check_listed(arrays: dict[str, NDArray[Any]], p: int, best_cells: Int64) -> None:
    cells, rows = np.unique(best_cells, return_inverse=True)
    counts = structs_of(arrays["counts"], structs.Counts)[p]
    firsts = np.searchsorted(cells, FIRST_CELLS).tolist()
    assert counts.cells == len(cells)
    assert list(counts.level_first) == firsts + [len(cells)] * (9 - len(firsts))
    np.testing.assert_array_equal(arrays["cell_list"][p, : len(cells)], cells)
    np.testing.assert_array_equal(arrays["cell_places"][p, cells], np.arange(len(cells)))
    np.testing.assert_array_equal(arrays["best_rows"][p, : len(rows)], rows)


@pytest.mark.parametrize("candidates", [0, 1, 2, 31, 500, CELLS * CLASSES])
def test_best_candidates_are_those_of_the_cpu_path(candidates: int) -> None:
    check_top([random_image(candidates)])


@pytest.mark.parametrize("best", [1, 2, 37, 64, 300, 512, 2048])
def test_best_are_cut_where_the_cpu_path_cuts(best: int) -> None:
    (n,) = check_top([random_image(1000, seed=3)], best)
    assert n <= best
    assert best > 512 or n == best


@pytest.mark.parametrize("best", [100, 500])
def test_first_of_equal_scores_are_best(best: int) -> None:
    assert check_top([tied_image(1100)], best) == [best]


def test_few_scores_that_many_share_are_cut_in_order() -> None:
    image = tied_image(CELLS * CLASSES, seed=5)
    scores = np.random.default_rng(0).choice([0.2, 0.4, 0.41, 0.8], CELLS * CLASSES).astype(np.float32)
    assert check_top([replace(image, candidates=replace(image.candidates, scores=scores))]) == [500]


@pytest.mark.parametrize("passing", [499, 500, 501])
def test_all_are_best_up_to_the_cut(passing: int) -> None:
    cells = -(-passing // CLASSES)
    numbers = np.concatenate([np.arange(passing), np.arange(cells * CLASSES, cells * CLASSES + 200)])
    image = image_of(numbers, np.random.default_rng(0).uniform(0.1, 1, len(numbers)))
    areas = np.where(image.cells < cells, 100, 0)
    assert check_top([replace(image, areas=areas, totals=areas.astype(np.float32))]) == [min(500, passing)]


def test_no_mask_above_its_stride_is_no_best() -> None:
    image = random_image(60)
    assert check_top([replace(image, areas=np.zeros_like(image.areas))]) == [0]


def test_images_of_a_batch_do_not_mix() -> None:
    many, none, few = check_top([random_image(1100, 1), random_image(0), tied_image(9, 2)], best=200)
    assert many == 200
    assert none == 0 < few <= 9


def check_kept(settings: list[PostprocessSpec], scores: list[Float32], factors: list[Float32]) -> list[int]:
    """Compare what is kept of best `scores` times `factors`; returns how many are."""
    n, most = len(settings), 512
    arrays: dict[str, NDArray[Any]] = {
        "settings": settings_bytes(settings),
        "best_count": np.array([len(one) for one in scores], np.int32),
        "best_scores": uninitialised((n, most), np.float32),
        "factors": uninitialised((n, most), np.float32),
        "kept": uninitialised((n, most), np.int32),
        "kept_scores": uninitialised((n, most), np.float32),
        "kept_count": uninitialised(n, np.int32),
    }
    for p in range(n):
        arrays["best_scores"][p, : len(scores[p])] = scores[p]
        if settings[p].nms != "none":
            arrays["factors"][p, : len(scores[p])] = factors[p]
    Emulator().launch("select_kept", n, 1024, batch_of(sizes_of(n, most), arrays))
    for p in range(n):
        count = len(scores[p])
        left = scores[p] if settings[p].nms == "none" else scores[p] * factors[p]
        numbers, nothing = np.arange(count), np.zeros(count, np.int64)
        found = MaskedCandidates(
            numbers, nothing, left, nothing, np.zeros((count, 1, 1), np.uint64), np.zeros((count, 4), np.int64)
        )
        expected = select(found, replace(settings[p], nms="none"))
        kept = int(arrays["kept_count"][p])
        np.testing.assert_array_equal(arrays["kept"][p, :kept], expected.cells)
        np.testing.assert_array_equal(arrays["kept_scores"][p, :kept], expected.scores)
    return list(arrays["kept_count"].tolist())


def falling(n: int, seed: int = 0) -> Float32:
    """Scores as NMS gets them, in steps so that many are equal."""
    steps = np.random.default_rng(seed).integers(3, 64, n) / 64
    return -np.sort(-steps.astype(np.float32))


@pytest.mark.parametrize("count", [0, 1, 2, 33, 100, 512])
def test_kept_are_those_of_the_cpu_path(count: int) -> None:
    factors = np.random.default_rng(1).choice([0, 0.25, 0.5, 1], count).astype(np.float32)
    check_kept([SETTINGS], [falling(count)], [factors])


def test_suppressed_ones_are_not_kept_though_every_score_is_asked_for() -> None:
    scores, factors = falling(64), np.tile(np.array([0, 1], np.float32), 32)
    assert check_kept([replace(SETTINGS, score_threshold=0.0)], [scores], [factors]) == [32]


def test_scores_at_the_threshold_are_kept() -> None:
    settings = replace(SETTINGS, score_threshold=0.3)
    assert check_kept([settings], [np.array([0.3, 0.29], np.float32)], [np.ones(2, np.float32)]) == [1]


def test_images_of_a_batch_are_cut_as_each_asks() -> None:
    settings = [
        replace(SETTINGS, max_instances=7),
        replace(SETTINGS, nms="none", max_instances=2048),
        replace(SETTINGS, nms="mask", score_threshold=0.5),
    ]
    scores = [falling(90, 1), falling(300, 2), falling(40, 3)]
    numbers = check_kept(settings, scores, [np.ones(90, np.float32), np.empty(0, np.float32), np.ones(40, np.float32)])
    assert numbers == [7, int((scores[1] >= 0.05).sum()), int((scores[2] >= 0.5).sum())]
