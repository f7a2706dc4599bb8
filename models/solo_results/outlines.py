"""Traces the outlines of masks along pixel edges, for all masks of an image at once, in arrays.

    object runs ─► pieces of columns ─► corners ─► vertical and horizontal edges ─► rings ─► which hole is in which part

A corner is a point of the pixel grid where an outline turns. Sorted down the columns, corners number 2k and 2k + 1 are the ends of
a vertical edge; sorted along the rows, two such neighbours are the ends of a horizontal edge. An outline alternates between both
kinds, with the object on its right (y points down), so the step from one vertical edge to the following one is a
permutation, whose cycles are the rings.
Where two pixels touch at a point only, four edges meet, and two corners are at one place: see `_pair_corners`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solo_results.runs import Int64, ObjectRuns, columns_of

_LEFT, _BOTTOM = 2, 1  # bits of an event: it is of the column left of its grid line; it is the bottom of a piece


@dataclass(frozen=True, slots=True)
class Rings:
    """All rings of all masks, one after the other, in the order of masks, then of their leftmost and topmost corner.

    points: `(P, 2) int64`, x and y; starts: `(R + 1,) int64`, where each ring begins in `points`; mask: `(R,) int64`, the number of
    its mask; parent: `(R,) int64`, for a hole the ring that is its exterior, for an exterior itself.
    """

    points: Int64
    starts: Int64
    mask: Int64
    parent: Int64


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Pieces of columns of all masks. keys: of (mask, column, top), sorted; `tops`, in pixels."""

    keys: Int64
    tops: Int64


@dataclass(frozen=True, slots=True)
class _Corners:
    """All corners, sorted by mask, x, y.

    x, y, mask: `(C,) int64`; leaves_vertically: `(C,) bool`, whether the outline leaves the corner along its vertical edge;
    saddles: `(S,) int64`, corners whose neighbour `+ 1` is at the same place; falls: `(S,) bool`, whether the two pixels that touch
    there are upper left and lower right.
    """

    x: Int64
    y: Int64
    mask: Int64
    leaves_vertically: NDArray[np.bool_]
    saddles: Int64
    falls: NDArray[np.bool_]


def trace(size: tuple[int, int], masks: list[ObjectRuns]) -> Rings:
    """The rings of masks of one size, `(H, W)` in pixels.

    No ring touches itself. Two parts, two holes, or a hole and its exterior touch at single points at most.
    """
    pieces, corners = _corners(size, masks)
    is_split = np.zeros(len(corners.saddles), np.bool_)
    by_row, leader, order = _rings(size, corners, is_split)
    is_split = leader[corners.saddles >> 1] == leader[(corners.saddles + 1) >> 1]
    if is_split.any():
        by_row, leader, order = _rings(size, corners, is_split)
    return _assemble(size, pieces, corners, by_row, leader, order)


def _corners(size: tuple[int, int], masks: list[ObjectRuns]) -> tuple[_Pieces, _Corners]:
    height, width = size
    lengths = [len(mask.starts) for mask in masks]
    mask = np.repeat(np.arange(len(masks)), lengths)
    offsets = mask * (height * width)  # as if the masks lay side by side
    starts = np.concatenate([np.zeros(0, np.int64), *(one.starts for one in masks)]) + offsets
    ends = np.concatenate([np.zeros(0, np.int64), *(one.ends for one in masks)]) + offsets
    column, tops, bottoms = columns_of(starts, ends, max(height, 1))
    # one more grid line than columns, and than rows, in each mask
    line = (column + column // max(width, 1)) * (height + 1)
    top, bottom, step = line + tops, line + bottoms, height + 1
    events = np.concatenate(
        [top * 4, bottom * 4 + _BOTTOM, (top + step) * 4 + _LEFT, (bottom + step) * 4 + _LEFT + _BOTTOM]
    )
    events.sort()
    return _Pieces(top, tops), _corners_of_events(size, events)


def _corners_of_events(size: tuple[int, int], events: Int64) -> _Corners:
    """A place where both columns have a top, or both a bottom, is not a corner: the outline goes straight on."""
    place = events >> 2
    is_first = np.append(place[1:] == place[:-1], False)  # of two events at one place, the first is of the right column
    first = np.flatnonzero(is_first)
    is_straight = (events[first] & _BOTTOM) == (events[first + 1] & _BOTTOM) if len(first) else np.zeros(0, np.bool_)
    is_kept = np.ones(len(events), np.bool_)
    is_kept[first[is_straight]] = is_kept[first[is_straight] + 1] = False
    number = np.cumsum(is_kept) - 1
    saddle = first[~is_straight]
    kept, place = events[is_kept], place[is_kept]
    line, y = np.divmod(place, size[0] + 1)
    mask, x = np.divmod(line, size[1] + 1)
    is_left, is_bottom = (kept & _LEFT) > 0, (kept & _BOTTOM) > 0
    return _Corners(x, y, mask, is_left != is_bottom, number[saddle], (events[saddle] & _BOTTOM) == 0)


def _pair_corners(size: tuple[int, int], corners: _Corners, is_split: NDArray[np.bool_]) -> Int64:
    """The corners in the order of rows: numbers 2k and 2k + 1 are the ends of a horizontal edge.

    Of the two corners at one place the first is the end of the upper vertical edge. Which of them is the end of the left horizontal
    edge decides which pixels an outline keeps together: the outline of each pixel's own part (the pixels touch, and are two
    parts), or where `is_split`, the other way round: both corners were of one ring, and become two rings.
    """
    key = ((corners.mask * (size[0] + 1) + corners.y) * (size[1] + 1) + corners.x) * 2
    is_swapped = corners.falls == is_split
    key[corners.saddles + (~is_swapped).astype(np.int64)] += 1
    return np.argsort(key, kind="stable")


def _rings(size: tuple[int, int], corners: _Corners, is_split: NDArray[np.bool_]) -> tuple[Int64, Int64, Int64]:
    """Corners in the order of rows; and of each vertical edge, the first edge of its ring and its place in it."""
    by_row = _pair_corners(size, corners, is_split)
    across = np.empty(len(by_row), np.int64)
    across[by_row[0::2]], across[by_row[1::2]] = by_row[1::2], by_row[0::2]
    ends = np.arange(0, len(by_row), 2) + corners.leaves_vertically[0::2]
    following = across[ends] >> 1
    leader, order = _cycles(following)
    return by_row, leader, order


def _cycles(following: Int64) -> tuple[Int64, Int64]:
    """Of a permutation: the smallest element of each element's cycle, and how far the element is from it; by pointer doubling."""
    elements = np.arange(len(following))
    leader, jump = elements.copy(), following
    while True:
        smaller = np.minimum(leader, leader[jump])
        if (smaller == leader).all():
            break
        leader, jump = smaller, jump[jump]
    length = np.bincount(leader, minlength=len(following))
    is_leader = leader == elements
    jump = np.where(is_leader, elements, following)
    distance = (~is_leader).astype(np.int64)
    for _ in range(int(length.max(initial=1)).bit_length()):
        distance += distance[jump]
        jump = jump[jump]
    return leader, np.where(is_leader, 0, length[leader] - distance)


def _assemble(
    size: tuple[int, int], pieces: _Pieces, corners: _Corners, by_row: Int64, leader: Int64, order: Int64
) -> Rings:
    first, ring, length = np.unique(leader, return_inverse=True, return_counts=True)
    starts = np.append(0, np.cumsum(2 * length))
    place = starts[ring] + 2 * order
    begin = np.arange(0, len(corners.x), 2) + ~corners.leaves_vertically[0::2]
    points = np.empty((len(corners.x), 2), np.int64)
    for shift, corner in ((0, begin), (1, begin ^ 1)):
        points[place + shift, 0], points[place + shift, 1] = corners.x[corner], corners.y[corner]
    # the first edge is the ring's leftmost one: it goes up where the object is on its right side, which makes an exterior
    is_hole = corners.leaves_vertically[2 * first]
    parent = np.arange(len(first))
    holes = np.flatnonzero(is_hole)
    parent[holes] = _ring_left_of(size, pieces, corners, by_row, ring, 2 * first[holes])
    while is_hole[parent].any():
        parent = parent[parent]
    return Rings(points, starts, corners.mask[2 * first], parent)


def _ring_left_of(
    size: tuple[int, int], pieces: _Pieces, corners: _Corners, by_row: Int64, ring: Int64, corner: Int64
) -> Int64:
    """The ring of the same part that has the top edge of the piece left of each `corner`, the upper left one of a hole.

    It is the exterior, or a hole that begins further left.
    """
    height, width = size
    x, y, mask = corners.x[corner] - 1, corners.y[corner], corners.mask[corner]
    piece = np.searchsorted(pieces.keys, (mask * (width + 1) + x) * (height + 1) + y, side="right") - 1
    keys = ((corners.mask * (height + 1) + corners.y) * (width + 1) + corners.x)[by_row]
    edge = np.searchsorted(keys, (mask * (height + 1) + pieces.tops[piece]) * (width + 1) + x, side="right") - 1
    left: Int64 = ring[by_row[edge] >> 1]
    return left
