"""Which grid cell predicts which object: label assignment of section 3.3.1.

An object is assigned to every level whose range contains the geometric mean of its box sides. Positive are the cells touched by a
box of `epsilon` times the object's size around its centre of mass, at most one cell away from the cell of that centre. Where
objects compete for a cell, the smaller one gets it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from solo_models.training.dataset import Sample
from solo_models.training.recipe import Recipe

IGNORED = -2
BACKGROUND = -1


@dataclass(frozen=True, slots=True)
class LevelTargets:
    """One image at one level.

    labels: `(S, S) int64`, a class, BACKGROUND or IGNORED. rows, columns: `(k,) int64`, the positive cells;
    masks: `(k, h, w) float32` 0..1, the masks of their objects at half the level's stride.
    """

    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    masks: NDArray[np.float32]


def assign(sample: Sample, recipe: Recipe) -> list[LevelTargets]:
    """Targets of every level; without objects no cell is positive."""
    objects = [_Object.of(m, int(label)) for m, label in zip(sample.masks, sample.labels, strict=True)]
    objects.sort(key=lambda o: -o.area)
    return [_assign_level(sample, objects, recipe, level) for level in range(len(recipe.spec.grids))]


@dataclass(frozen=True, slots=True)
class _Object:
    mask: NDArray[np.uint8]
    label: int
    area: int
    box_wh: tuple[int, int]
    centre_xy: tuple[float, float]

    @classmethod
    def of(cls, mask: NDArray[np.uint8], label: int) -> _Object:
        ys, xs = np.nonzero(mask)
        wh = (int(xs.max() - xs.min()) + 1, int(ys.max() - ys.min()) + 1)
        return cls(mask, label, len(xs), wh, (float(xs.mean()) + 0.5, float(ys.mean()) + 0.5))


def _assign_level(sample: Sample, objects: list[_Object], recipe: Recipe, level: int) -> LevelTargets:
    canvas_h, canvas_w = sample.valid.shape
    grid = recipe.spec.grids[level]
    low, high = (v * max(canvas_h, canvas_w) for v in recipe.level_ranges[level])
    labels = np.full((grid, grid), BACKGROUND, np.int64)
    owner = np.full((grid, grid), -1, np.int64)
    crowd = cv2.resize(sample.ignored.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA)
    labels[crowd > 0.5] = IGNORED
    for index, item in enumerate(objects):
        if not low <= (item.box_wh[0] * item.box_wh[1]) ** 0.5 < high:
            continue
        rows = _touched(item.centre_xy[1], item.box_wh[1], canvas_h, grid, recipe.centre_epsilon)
        columns = _touched(item.centre_xy[0], item.box_wh[0], canvas_w, grid, recipe.centre_epsilon)
        labels[rows, columns] = item.label
        owner[rows, columns] = index
    rows_, columns_ = np.nonzero(owner >= 0)
    stride = recipe.spec.strides[level] // 2
    size = (canvas_w // stride, canvas_h // stride)
    scaled = {
        i: cv2.resize(objects[i].mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for i in np.unique(owner[owner >= 0])
    }
    masks = [scaled[i] for i in owner[rows_, columns_]]
    return LevelTargets(labels, rows_, columns_, np.array(masks, np.float32).reshape(-1, size[1], size[0]))


def _touched(centre: float, extent: float, canvas: int, grid: int, epsilon: float) -> slice:
    cell = canvas / grid
    middle = min(int(centre / cell), grid - 1)
    first = int(max(centre - epsilon * extent / 2, 0) / cell)
    last = int(min(centre + epsilon * extent / 2, canvas - 1) / cell)
    return slice(max(first, middle - 1, 0), min(last, middle + 1, grid - 1) + 1)
