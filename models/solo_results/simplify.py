"""Fewer corners for rings (Douglas and Peucker, 1973), for all rings at once: each round divides every gap that is too coarse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solo_results.runs import Int64

Float64 = NDArray[np.float64]

_FORCED_ROUNDS = 2  # the farthest point from the first one, then a third one


def simplify(points: Int64, starts: Int64, tolerance: float) -> tuple[Int64, Int64]:
    """The points that are needed, so that every other one is at most `tolerance` pixels from the outline; and their rings' starts.

    points, starts: as `solo_results.outlines.Rings`. A ring keeps its first point, and at least three.
    """
    kept = np.zeros(len(points), np.bool_)
    kept[starts[:-1]] = True
    ring = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    open_points = np.flatnonzero(~kept)
    # the gap of each open point: between the kept points `begin` and `end`; at first from the ring's first point round to itself
    begin = end = starts[ring[open_points]]
    x, y = points.T.astype(np.float64)
    rounds = 0
    while len(open_points):
        distance = _squared_distance(x, y, open_points, begin, end)
        gaps = np.flatnonzero(np.diff(begin, prepend=-1))
        sizes = np.diff(gaps, append=len(begin))
        most = np.maximum.reduceat(distance, gaps)
        is_divided = most > tolerance**2
        if rounds < _FORCED_ROUNDS:
            is_divided |= most == _most_of_ring(most, ring[begin[gaps]])
        farthest = np.repeat(_first_at(distance, most, gaps, sizes, open_points), sizes)
        kept[farthest[np.repeat(is_divided, sizes)]] = True
        is_open = np.repeat(is_divided, sizes) & (open_points != farthest)
        open_points, begin, end, farthest = open_points[is_open], begin[is_open], end[is_open], farthest[is_open]
        begin, end = np.where(open_points > farthest, farthest, begin), np.where(open_points < farthest, farthest, end)
        rounds += 1
    return points[kept], np.append(0, np.cumsum(np.bincount(ring[kept], minlength=len(starts) - 1)))


def _squared_distance(x: Float64, y: Float64, which: Int64, begin: Int64, end: Int64) -> Float64:
    """From each point to the edge between two others, in pixels, squared."""
    from_x, from_y = x[begin], y[begin]
    to_x, to_y = x[which] - from_x, y[which] - from_y
    edge_x, edge_y = x[end] - from_x, y[end] - from_y
    along = np.clip((to_x * edge_x + to_y * edge_y) / np.maximum(edge_x**2 + edge_y**2, 1), 0, 1)
    squared: Float64 = (to_x - along * edge_x) ** 2 + (to_y - along * edge_y) ** 2
    return squared


def _most_of_ring(most: Float64, ring: Int64) -> Float64:
    """Of each gap, the largest distance in its ring."""
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    of_ring: Float64 = np.repeat(np.maximum.reduceat(most, first), np.diff(first, append=len(ring)))
    return of_ring


def _first_at(distance: Float64, most: Float64, gaps: Int64, sizes: Int64, points: Int64) -> Int64:
    """Of each gap, its first point at the largest distance."""
    candidates = np.flatnonzero(distance == np.repeat(most, sizes))
    return points[candidates[np.searchsorted(candidates, gaps)]]
