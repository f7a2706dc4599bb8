"""Results that are made, not found: masks of every kind that a tool has to carry unchanged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from solo_results.rle import encode_rle
from solo_results.types import Instance, Result, RleMask

LABELS = ("cat", "dog", "traffic light")


def tiny_masks() -> NDArray[np.bool_]:
    """(8, 5, 7) bool: a pixel in each corner, a hole, two parts, the whole image, a row, a column, a comb, pixels that touch at
    a corner."""
    masks = np.zeros((8, 5, 7), np.bool_)
    masks[0][[0, 0, -1, -1], [0, -1, 0, -1]] = True
    masks[1, 1:4, 2:5] = True
    masks[1, 2, 3] = False
    masks[2, 0, :2] = masks[2, 3:, 5:] = True
    masks[3] = True
    masks[4, 2] = True
    masks[5, :, 6] = True
    masks[6, :, ::2] = True
    masks[7, [1, 2], [1, 2]] = True
    return masks


def random_masks(count: int, hw: tuple[int, int], seed: int) -> NDArray[np.bool_]:
    """(count, H, W) bool: blobs with holes, islands and ragged edges, in boxes of any place and size."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *hw), np.bool_)
    for mask in masks:
        top, left = rng.integers(0, hw[0] - 3), rng.integers(0, hw[1] - 3)
        part = mask[top : rng.integers(top + 2, hw[0] + 1), left : rng.integers(left + 2, hw[1] + 1)]
        part[:] = rng.random(part.shape) < rng.uniform(0.1, 0.9)
        part[0, 0] = True
    return masks


def result_of(masks: NDArray[np.bool_]) -> Result:
    """A result of one image: masks (N, H, W) bool; scores fall, labels take turns."""
    count, height, width = masks.shape
    instances = tuple(_instance(number, count, mask) for number, mask in enumerate(masks))
    return Result(width, height, "made", "1", {"total": 1.0}, instances)


def _instance(number: int, count: int, mask: NDArray[np.bool_]) -> Instance:
    class_id = number % len(LABELS)
    height, width = mask.shape
    return Instance(
        label=LABELS[class_id],
        class_id=class_id,
        score=round(1 - number / (count + 1), 6),
        box_xywh=box_of(mask),
        area=int(mask.sum()),
        mask=RleMask((height, width), encode_rle(mask)),
    )


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, width, height of the smallest box around the pixels; zeros where there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)
