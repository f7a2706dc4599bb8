"""Which pixels a bilinear resize reads, for each axis; also for two resizes combined into one."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from solo_server.types import Float32, Int64

TAPS = 3
"""The most mask pixels that one pixel of the original size reads, an axis."""

Taps = tuple[Int64, Int64, Float32]


@lru_cache(maxsize=256)
def original_taps(length: int, stride: int, resized: int, original: int) -> Taps:
    """For each pixel of the original size: first and last tap in the mask, `(original,)`, and weights, `(3, original)`.

    Combines two resizes: from `length` to `length * stride`, cropped to `resized`, and from there to `original`.
    """
    low, high, weight = bilinear_taps(length, length * stride)
    near, far, far_weight = bilinear_taps(resized, original)
    taps = np.stack([low[near], high[near], low[far], high[far]])
    tap_weights = np.stack(
        [
            (1 - weight[near]) * (1 - far_weight),
            weight[near] * (1 - far_weight),
            (1 - weight[far]) * far_weight,
            weight[far] * far_weight,
        ]
    )
    first = taps.min(0)
    weights = np.zeros((TAPS, original))
    np.add.at(weights, (taps - first, np.arange(original)[None]), tap_weights)
    last = first + TAPS - 1 - (weights[::-1] != 0).argmax(0)
    return first, last, weights.astype(np.float32)


@lru_cache(maxsize=1024)
def bilinear_taps(length: int, target: int) -> tuple[Int64, Int64, NDArray[np.float64]]:
    """Bilinear interpolation of `length` pixels to `target`: lower neighbour, upper neighbour and its weight, `(target,)` each.

    Half-pixel centres, edges repeated, no antialiasing (torch `interpolate`, `align_corners=False`).
    """
    position = np.maximum((np.arange(target) + 0.5) * (length / target) - 0.5, 0)
    low = np.minimum(position.astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1), position - low
