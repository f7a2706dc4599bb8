"""Ids of objects across the frames of a video, by mask IoU between frames. Needs numpy and scipy.

instances of a frame ─► IoU with the last mask of each track ─► Hungarian assignment ─► an id for each instance

No motion model and no appearance: an object that moves by more than its own size between two frames, or that is hidden for longer
than `max_missed` frames, gets a new id. Source: the assignment of SORT (Bewley et al. 2016, section 3.3), with masks instead of
predicted boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from solo_results.rle import decode_counts
from solo_results.types import Instance

MIN_IOU = 0.3  # SORT's IoU_min
MAX_MISSED = 5  # frames without a match before a track ends


@dataclass(frozen=True, slots=True)
class MaskRuns:
    """A mask as runs of foreground pixels, counted down the columns: `[starts, ends)`, each `(runs,) int64`.

    edges, before: `before[i]` mask pixels lie before pixel `edges[i]`, and grow linearly between edges.
    """

    class_id: int
    size: tuple[int, int]
    box_xywh: tuple[int, int, int, int]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    edges: NDArray[np.int64]
    before: NDArray[np.int64]
    area: int


@dataclass(slots=True)
class _Track:
    number: int
    mask: MaskRuns
    missed: int = 0


class Tracker:
    """Gives the instances of consecutive frames their track ids, counted from 1; an id is never used twice."""

    def __init__(self, min_iou: float = MIN_IOU, max_missed: int = MAX_MISSED) -> None:
        """min_iou: least IoU of one object in two frames; max_missed: frames without it before its track ends."""
        self._min_iou, self._max_missed = min_iou, max_missed
        self._tracks: list[_Track] = []
        self._last_number = 0

    def update(self, instances: Sequence[Instance]) -> tuple[int, ...]:
        """The track id of each instance of the next frame.

        An instance continues a track of its class if the IoU of their masks is at least `min_iou`; the sum of all IoUs is the
        largest possible. Any other instance begins a track.

        Raises:
            DamagedMask: a mask cannot be decoded.
        """
        masks = [runs_of(instance) for instance in instances]
        matched = self._match(masks)
        for row, track in enumerate(self._tracks):
            column = matched.get(row)
            track.missed = track.missed + 1 if column is None else 0
            if column is not None:
                track.mask = masks[column]
        ids = {column: self._tracks[row].number for row, column in matched.items()}
        self._tracks = [track for track in self._tracks if track.missed <= self._max_missed]
        return tuple(ids[column] if column in ids else self._begin(mask) for column, mask in enumerate(masks))

    def _match(self, masks: Sequence[MaskRuns]) -> dict[int, int]:
        """From tracks to instances, by position."""
        if not masks or not self._tracks:
            return {}
        iou = np.array([[mask_iou(track.mask, mask) for mask in masks] for track in self._tracks])
        iou[iou < self._min_iou] = 0
        rows, columns = linear_sum_assignment(iou, maximize=True)
        return {int(row): int(column) for row, column in zip(rows, columns, strict=True) if iou[row, column] > 0}

    def _begin(self, mask: MaskRuns) -> int:
        self._last_number += 1
        self._tracks.append(_Track(self._last_number, mask))
        return self._last_number


def runs_of(instance: Instance) -> MaskRuns:
    """The mask of an instance as runs; raises DamagedMask if it cannot be decoded."""
    edges = np.cumsum(decode_counts(instance.mask.counts))
    edges = edges[: len(edges) // 2 * 2]  # a run of background at the end has no edge of its own
    starts, ends = edges[0::2], edges[1::2]
    before = np.zeros(len(edges), np.int64)
    before[1::2] = np.cumsum(ends - starts)
    before[2::2] = before[1:-1:2]
    area = int(before[-1]) if len(before) else 0
    return MaskRuns(instance.class_id, instance.mask.size, instance.box_xywh, starts, ends, edges, before, area)


def mask_iou(one: MaskRuns, other: MaskRuns) -> float:
    """Exact IoU of two masks; 0 if they differ in class or in image size, or are empty."""
    if one.class_id != other.class_id or one.size != other.size or not _boxes_overlap(one.box_xywh, other.box_xywh):
        return 0.0
    few, many = (one, other) if len(one.starts) <= len(other.starts) else (other, one)
    # float64 holds these counts exactly
    shared = np.sum(np.interp(few.ends, many.edges, many.before) - np.interp(few.starts, many.edges, many.before))
    union = one.area + other.area - shared
    return float(shared / union) if union else 0.0


def _boxes_overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Whether two boxes `(x, y, width, height)` share a pixel."""
    return all(one[axis] < other[axis] + other[axis + 2] and other[axis] < one[axis] + one[axis + 2] for axis in (0, 1))
