"""Polygons to masks: a pixel belongs to the mask if its centre is inside (even-odd rule).

Exact at pixel centres. pycocotools rounds corners to a fifth of a pixel first: both agree on whole coordinates, and on others may
differ at pixels whose centre is within 0.25 pixels of the outline (`tests/results/test_fill.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from solo_results.errors import PolygonTooComplex
from solo_results.runs import ObjectRuns, runs_of_toggles, union

MAX_CROSSINGS = 1 << 23
"""Most crossings of an outline with columns of pixel centres: some 400 MB of arrays."""

Rings = Sequence[NDArray[np.floating] | NDArray[np.integer]]


def fill(rings: Rings, size: tuple[int, int]) -> ObjectRuns:
    """The pixels of a mask of `(H, W)` whose centres are inside an odd number of rings.

    rings: each `(P, 2)`, x and y in pixels, closed. What is outside of the image is cut off.

    Raises:
        PolygonTooComplex: more than MAX_CROSSINGS.
    """
    height, width = size
    tails = np.concatenate([np.zeros((0, 2)), *(np.asarray(ring, np.float64) for ring in rings)])
    heads = np.concatenate([np.zeros((0, 2)), *(np.roll(np.asarray(ring, np.float64), -1, axis=0) for ring in rings)])
    is_turned = (tails[:, 0] > heads[:, 0])[
        :, None
    ]  # from left to right: an edge passed twice is crossed at the same places
    left, right = np.where(is_turned, heads, tails), np.where(is_turned, tails, heads)
    first, stop = (np.clip(np.ceil(end[:, 0] - 0.5), 0, width).astype(np.int64) for end in (left, right))
    crossings = stop - first
    if crossings.sum() > MAX_CROSSINGS:
        raise PolygonTooComplex(
            f"a polygon crosses columns of pixels {crossings.sum()} times; {MAX_CROSSINGS} are allowed"
        )
    edge = np.repeat(np.arange(len(left)), crossings)
    column = np.arange(len(edge)) - np.repeat(np.cumsum(crossings) - crossings, crossings) + first[edge]
    run, rise = right[edge] - left[edge], column + 0.5 - left[edge, 0]
    y = left[edge, 1] + rise * (run[:, 1] / run[:, 0])
    row = np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64)
    return runs_of_toggles(size, column * height + row)


def fill_parts(parts: Sequence[Rings], size: tuple[int, int]) -> ObjectRuns:
    """The union of several parts, each filled by itself; no parts give a mask without pixels.

    Raises:
        PolygonTooComplex: see `fill`.
    """
    return union(size, [fill(rings, size) for rings in parts])
