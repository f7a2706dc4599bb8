"""Which pixels a bilinear resize reads, axis by axis; also two resizes in a row as one."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from solo_server.types import Float32, Int64

TAPS = 3

Taps = tuple[Int64, Int64, Float32]


@lru_cache(maxsize=256)
def original_taps(length: int, stride: int, resized: int, original: int) -> Taps:
    """For each pixel of the original size: its first and last tap of the mask, `(original,)`, and weights, `(3, original)`.

    The first step goes from `length` to `length * stride` and is cropped to `resized`; the second from there to `original`.
    """
    low, high, weight = bilinear_taps(length, length * stride)
    near, far, share = bilinear_taps(resized, original)
    places = np.stack([low[near], high[near], low[far], high[far]])
    parts = np.stack(
        [(1 - weight[near]) * (1 - share), weight[near] * (1 - share), (1 - weight[far]) * share, weight[far] * share]
    )
    first = places.min(0)
    weights = np.zeros((TAPS, original))
    np.add.at(weights, (places - first, np.arange(original)[None]), parts)
    last = first + TAPS - 1 - (weights[::-1] != 0).argmax(0)
    return first, last, weights.astype(np.float32)


@lru_cache(maxsize=1024)
def bilinear_taps(length: int, target: int) -> tuple[Int64, Int64, NDArray[np.float64]]:
    """Bilinear interpolation of `length` pixels to `target`: lower and upper neighbour and the upper one's weight, `(target,)`.

    Half-pixel centres, edges repeated, no antialias (torch `interpolate`, `align_corners=False`).
    """
    position = np.maximum((np.arange(target) + 0.5) * (length / target) - 0.5, 0)
    low = np.minimum(position.astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1), position - low
