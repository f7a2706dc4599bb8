"""Places for labels: close to their objects, inside the image, and never on top of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]
_DISTANCES = (0.5, 1.5, 3.0, 5.0, 7.0)  # of a label that is moved away, in heights of a label
_ANGLES = np.arange(16) * (np.pi / 8) - np.pi / 2
_MOST_COVERED = 0.3  # of an image by labels; on a small image they would hide everything
_LONGEST_LEADER = 8  # heights of a label; a label further away is left out
_TRIED = 48  # free places of a label that are tried for one that hides no small object
_RINGS = np.repeat(_DISTANCES, len(_ANGLES))
_ACROSS, _DOWN = np.tile(np.cos(_ANGLES), len(_DISTANCES)), np.tile(np.sin(_ANGLES), len(_DISTANCES))


@dataclass(frozen=True, slots=True)
class Anchors:
    """Where an object can be labelled: its box, points of its mask at each side, and points inside; `(x, y)` in pixels."""

    box_xywh: tuple[int, int, int, int]
    top: Point
    bottom: Point
    left: Point
    right: Point
    inner: tuple[Point, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        """All points of the mask."""
        return (self.top, self.bottom, self.left, self.right, *self.inner)


@dataclass(frozen=True, slots=True)
class Place:
    """The upper left corner of a label, and the point of the object to draw a line to if the label is away from it."""

    left: int
    top: int
    leader_to: Point | None


def find_anchors(mask: NDArray[np.bool_], left: int, top: int) -> Anchors:
    """The anchors of a mask `(h, w) bool` whose box starts at `left`, `top`; a mask without pixels has the corner."""
    height, width = mask.shape
    if height == 0 or width == 0:
        corner = (left, top)
        return Anchors((left, top, width, height), corner, corner, corner, corner, (corner,))
    rows = [_middle(mask[row]) for row in (0, height - 1, height // 2, height // 4, 3 * height // 4)]
    first, last, *inner = ((left + x, top + y) for x, y in zip(
        rows, (0, height - 1, height // 2, height // 4, 3 * height // 4), strict=True))  # fmt: skip
    at_left, at_right = (top + _middle(mask[:, column]) for column in (0, width - 1))
    return Anchors((left, top, width, height), first, last, (left, at_left), (left + width - 1, at_right), tuple(inner))


def place_labels(
    anchors: Sequence[Anchors], sizes_wh: Sequence[tuple[int, int]], image_hw: tuple[int, int], gap: int
) -> list[Place | None]:
    """A place for each label, in the order of the labels: no label covers an earlier one.

    A label takes the first of its candidate places that is free and hides no small object; else the first that is free. It has None
    if all are taken, if the place is too far from the object, or if labels would cover more than 30 % of the image.

    gap: pixels between label and object.
    """
    taken = np.empty((4, len(anchors)), np.int64)  # left, top, right, bottom
    count, places = 0, list[Place | None]()
    small = _small_boxes(anchors, sizes_wh)
    for anchor, (width, height) in zip(anchors, sizes_wh, strict=True):
        if count and (count + 1) * width * height > _MOST_COVERED * image_hw[0] * image_hw[1]:
            places.append(None)
            continue
        last = np.maximum((image_hw[1] - width, image_hw[0] - height), 0)
        near = _near(anchor, width, height, gap).clip(0, last)
        corner, hides = _best(near, width, height, taken[:, :count], small)
        if hides:
            both = np.concatenate((near, _around(anchor, width, height).clip(0, last)))
            corner, _ = _best(both, width, height, taken[:, :count], small)
        if corner is None:
            places.append(None)
            continue
        left, top = corner
        point, distance = _nearest(anchor, left, top, width, height)
        if distance > _LONGEST_LEADER * height:
            places.append(None)
            continue
        taken[:, count] = left, top, left + width, top + height
        count += 1
        places.append(Place(left, top, point if distance > height else None))
    return places


def _small_boxes(anchors: Sequence[Anchors], sizes_wh: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The boxes that a label would hide: `(4, n)`, left, top, right, bottom."""
    boxes = [
        (x, y, x + box_width, y + box_height)
        for (x, y, box_width, box_height), (width, height) in zip((a.box_xywh for a in anchors), sizes_wh, strict=True)
        if box_width < 1.5 * width and box_height < 4 * height
    ]
    return np.array(boxes, np.int64).reshape(-1, 4).T


def _near(anchor: Anchors, width: int, height: int, gap: int) -> NDArray[np.int64]:
    """Upper left corners `(n, 2)` at the object, the best first: at its top, inside, at its other sides."""
    (tx, ty), (bx, by), (lx, ly), (rx, ry) = anchor.top, anchor.bottom, anchor.left, anchor.right
    corners = [
        (tx - width // 2, ty - gap - height),
        (tx - gap, ty - gap - height),
        (tx + gap - width, ty - gap - height),
        *((x - width // 2, y - height // 2) for x, y in anchor.inner),
        (bx - width // 2, by + gap),
        (rx + gap, ry - height // 2),
        (lx - gap - width, ly - height // 2),
    ]
    return np.array(corners)


def _around(anchor: Anchors, width: int, height: int) -> NDArray[np.int64]:
    """Upper left corners `(n, 2)` on rings around the object's box, the nearest first."""
    x, y, box_width, box_height = anchor.box_xywh
    distances = _RINGS * height
    across = _ACROSS * ((box_width + width) / 2 + distances) + (x + box_width / 2 - width / 2)
    down = _DOWN * ((box_height + height) / 2 + distances) + (y + box_height / 2 - height / 2)
    return np.rint(np.stack((across, down), axis=1)).astype(np.int64)


def _best(
    corners: NDArray[np.int64], width: int, height: int, taken: NDArray[np.int64], small: NDArray[np.int64]
) -> tuple[Point | None, bool]:
    """The first free corner that hides no small object, or else the first free one, and whether it hides one; None if none is."""
    free = corners[~_covers(corners, width, height, taken)][:_TRIED]
    if len(free) == 0:
        return None, True
    hiding = _covers(free, width, height, small)
    first = int(np.argmin(hiding))
    x, y = free[first].tolist()
    return (x, y), bool(hiding[first])


def _covers(corners: NDArray[np.int64], width: int, height: int, boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether labels at the corners `(n, 2)` cover or touch one of the boxes `(4, m)`: left, top, right, bottom; `(n,) bool`."""
    left, top = corners[:, :1], corners[:, 1:]
    touching = (left <= boxes[2]) & (left + width >= boxes[0]) & (top <= boxes[3]) & (top + height >= boxes[1])
    covering: NDArray[np.bool_] = touching.any(axis=1)
    return covering


def _nearest(anchor: Anchors, left: int, top: int, width: int, height: int) -> tuple[Point, float]:
    """The point of the object that is nearest to its label, and how far away it is, in pixels."""

    def distance(point: Point) -> float:
        x, y = point
        return hypot(max(left - x, x - left - width, 0), max(top - y, y - top - height, 0))

    nearest = min(anchor.points, key=distance)
    return nearest, distance(nearest)


def _middle(line: NDArray[np.bool_]) -> int:
    """The middle one of the pixels that are set, or of all pixels if none is."""
    found = np.flatnonzero(line)
    return int(found[len(found) // 2]) if len(found) else len(line) // 2
