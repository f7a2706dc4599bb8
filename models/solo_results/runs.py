"""Masks as object runs: the pixels of a mask as pieces of its columns, between run lengths and outlines.

A mask is read column by column; pixel (x, y) is number `x * H + y`. An object run `[start, end)` has the numbers of set pixels;
runs are sorted and never touch each other. Positions are `(R,) int64`; a mask without pixels has R = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solo_results.errors import DamagedMask
from solo_results.rle import decode_counts, encode_counts

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ObjectRuns:
    """The set pixels of one mask. size: `(H, W)` in pixels; starts, ends: see above."""

    size: tuple[int, int]
    starts: Int64
    ends: Int64

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int((self.ends - self.starts).sum())

    @property
    def box_xywh(self) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels; zeros for a mask without pixels."""
        if not len(self.starts):
            return (0, 0, 0, 0)
        height = self.size[0]
        left, right = int(self.starts[0]) // height, (int(self.ends[-1]) - 1) // height
        _, tops, bottoms = columns_of(self.starts, self.ends, height)
        top, bottom = int(tops.min()), int(bottoms.max())
        return (left, top, right - left + 1, bottom - top)

    @property
    def counts(self) -> str:
        """The compressed run lengths, as pycocotools writes them."""
        bounds = np.stack((self.starts, self.ends), axis=1).ravel()
        pixels = self.size[0] * self.size[1]
        if pixels == 0:
            return ""
        if len(bounds) and bounds[-1] == pixels:
            return encode_counts(np.diff(bounds, prepend=0))
        return encode_counts(np.diff(bounds, prepend=0, append=pixels))


def runs_of_counts(size: tuple[int, int], counts: str) -> ObjectRuns:
    """The object runs of compressed run lengths.

    Raises:
        DamagedMask: see `solo_results.rle.decode_rle`.
    """
    lengths = decode_counts(counts)
    if min(size) < 0 or lengths.sum() != size[0] * size[1]:
        raise DamagedMask(
            f"counts covers {lengths.sum()} pixels, but size {size[0]} x {size[1]} has {size[0] * size[1]}"
        )
    if (lengths[1:] == 0).any():  # allowed, and never written by pycocotools
        return runs_of_toggles(size, np.cumsum(lengths))
    bounds = np.cumsum(lengths)
    return ObjectRuns(size, bounds[0 : len(bounds) - 1 : 2], bounds[1::2])


def runs_of_toggles(size: tuple[int, int], toggles: Int64) -> ObjectRuns:
    """The object runs of a mask that changes between background and object at each of `toggles`, in any order.

    Where a position occurs twice nothing changes. A change at the end of the mask is left out where it would be the only one.
    """
    positions, times = np.unique(toggles, return_counts=True)
    bounds = positions[times % 2 == 1]
    if len(bounds) % 2:
        end = size[0] * size[1]
        bounds = bounds[:-1] if bounds[-1] == end else np.append(bounds, end)
    return ObjectRuns(size, bounds[0::2], bounds[1::2])


def union(size: tuple[int, int], masks: list[ObjectRuns]) -> ObjectRuns:
    """The pixels that are in any of the masks, all of this size; no masks give a mask without pixels."""
    if len(masks) == 1:
        return masks[0]
    starts = np.concatenate([np.zeros(0, np.int64), *(mask.starts for mask in masks)])
    ends = np.concatenate([np.zeros(0, np.int64), *(mask.ends for mask in masks)])
    positions = np.concatenate((starts, ends))
    steps = np.repeat(np.array([1, -1]), len(starts))
    order = np.lexsort((-steps, positions))  # a run that starts where another ends continues it
    depth = np.cumsum(steps[order])
    first = np.flatnonzero((depth == 1) & (steps[order] == 1))
    return ObjectRuns(size, positions[order][first], positions[order][depth == 0])


def columns_of(starts: Int64, ends: Int64, height: int) -> tuple[Int64, Int64, Int64]:
    """Object runs divided at the ends of columns: column, top and bottom (exclusive) of each piece, in the order of the runs."""
    first, last = starts // height, (ends - 1) // height
    pieces = last - first + 1
    run = np.repeat(np.arange(len(starts)), pieces)
    column = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces) + first[run]
    tops = np.maximum(starts[run] - column * height, 0)
    bottoms = np.minimum(ends[run] - column * height, height)
    return column, tops, bottoms
