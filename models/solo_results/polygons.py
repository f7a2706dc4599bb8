"""Polygons of masks, exact along pixel edges, with holes; and polygons back to masks.

Coordinates are COCO's: pixel (x, y) covers [x, x + 1) x [y, y + 1), so the polygon of one pixel has the corners (x, y), (x + 1, y),
(x + 1, y + 1), (x, y + 1). Parts are 4-connected: pixels that touch at a point only are in two parts. No ring touches itself, and
rings of one mask touch each other at single points at most: these are valid polygons for shapely and GEOS. Exteriors go clockwise
on the screen, holes the other way round.

    RLE ─► runs ─► outlines ─► (simplify) ─► parts ─► bridged: one ring a part          rings ─► fill ─► RLE
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solo_results.outlines import Rings, trace
from solo_results.rle import encode_rle
from solo_results.runs import Int64, ObjectRuns, runs_of_counts
from solo_results.simplify import simplify

Points = Int64
"""The corners of a ring: `(P, 2)`, x and y in pixels; the last is joined to the first."""


@dataclass(frozen=True, slots=True)
class Part:
    """A connected part of a mask: its exterior ring and the rings of its holes."""

    exterior: Points
    holes: tuple[Points, ...] = ()

    @property
    def rings(self) -> tuple[Points, ...]:
        """The exterior, then the holes."""
        return (self.exterior, *self.holes)

    def to_flat(self) -> list[list[int]]:
        """The rings as flat lists `[x1, y1, x2, y2, ...]`, the exterior first."""
        return [ring.ravel().tolist() for ring in self.rings]


def polygons_of_counts(size: tuple[int, int], counts: Sequence[str], tolerance: float = 0.0) -> list[tuple[Part, ...]]:
    """The parts of each mask, all of one size `(H, W)`, from compressed run lengths; a mask without pixels has no parts.

    tolerance: how far in pixels an outline may move, so that it needs fewer corners; 0 is exact. Simplified rings may touch or
    cross themselves and each other.

    Raises:
        DamagedMask: run lengths do not fit the size.
    """
    return polygons_of_runs(size, [runs_of_counts(size, text) for text in counts], tolerance)


def polygons_of_mask(mask: NDArray[np.bool_], tolerance: float = 0.0) -> tuple[Part, ...]:
    """The parts of one mask `(H, W) bool`; see `polygons_of_counts`."""
    height, width = mask.shape
    return polygons_of_counts((height, width), [encode_rle(mask)], tolerance)[0]


def polygons_of_runs(
    size: tuple[int, int], masks: Sequence[ObjectRuns], tolerance: float = 0.0
) -> list[tuple[Part, ...]]:
    """As `polygons_of_counts`, from object runs."""
    rings = trace(size, list(masks))
    points, starts = rings.points, rings.starts
    if tolerance > 0:
        points, starts = simplify(points, starts, tolerance)
    return _parts(rings, np.split(points, starts[1:-1]) if len(starts) > 1 else [], len(masks))


def bridged(part: Part) -> Points:
    """The part as one ring that even-odd filling fills in the same way, for formats without holes.

    Each hole is joined to the ring by an edge that is passed twice, there and back.
    """
    ring = part.exterior
    for hole in part.holes:
        ring = _joined(ring, hole)
    return ring


def bridged_parts(parts: Sequence[Part]) -> Points:
    """All parts of a mask as one ring; `(0, 2)` without parts. See `bridged`."""
    if not parts:
        return np.zeros((0, 2), np.int64)
    ring = bridged(parts[0])
    for part in parts[1:]:
        ring = _joined(ring, bridged(part))
    return ring


def _joined(ring: Points, other: Points) -> Points:
    """`other` inserted into `ring` where the ring is nearest to its first point; both are closed by an edge there and back."""
    at = int(np.argmin(((ring - other[0]) ** 2).sum(axis=1)))
    return np.concatenate((ring[: at + 1], other, other[:1], ring[at:]))


def _parts(rings: Rings, points: Sequence[Points], masks: int) -> list[tuple[Part, ...]]:
    holes: dict[int, list[Points]] = {}
    parents = rings.parent.tolist()
    for ring, parent in enumerate(parents):
        if ring != parent:
            holes.setdefault(parent, []).append(points[ring])
    parts: list[list[Part]] = [[] for _ in range(masks)]
    for ring, (parent, mask) in enumerate(zip(parents, rings.mask.tolist(), strict=True)):
        if ring == parent:
            parts[mask].append(Part(points[ring], tuple(holes.get(ring, ()))))
    return [tuple(of_mask) for of_mask in parts]
