"""Places for labels: close to their objects, inside the image, and never on top of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]
_DISTANCES = (0.5, 1.5, 3.0, 5.0, 8.0, 12.0)  # of a label that is moved away, in heights of a label
_DIRECTIONS = 16


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

    A label takes the first of its candidate places that is free; None if all are taken. gap: pixels between label and object.
    """
    taken = np.empty((len(anchors), 4), np.int64)  # left, top, right, bottom
    count, places = 0, []
    for anchor, (width, height) in zip(anchors, sizes_wh, strict=True):
        corners = _candidates(anchor, width, height, gap)
        corners = np.clip(corners, 0, np.maximum((image_hw[1] - width, image_hw[0] - height), 0))
        boxes = np.concatenate((corners, corners + np.array((width, height))), axis=1)
        free = np.flatnonzero(~_overlaps(boxes, taken[:count]))
        if len(free) == 0:
            places.append(None)
            continue
        taken[count] = boxes[free[0]]
        count += 1
        places.append(_place(boxes[free[0]], anchor, height))
    return places


def _candidates(anchor: Anchors, width: int, height: int, gap: int) -> NDArray[np.int64]:
    """Upper left corners `(n, 2)`, the best first: at the top of the object, at its other sides, inside, then around it."""
    (tx, ty), (bx, by), (lx, ly), (rx, ry) = anchor.top, anchor.bottom, anchor.left, anchor.right
    near = [
        (tx - width // 2, ty - gap - height),
        (tx - gap, ty - gap - height),
        (tx + gap - width, ty - gap - height),
        *((x - width // 2, y - height // 2) for x, y in anchor.inner),
        (bx - width // 2, by + gap),
        (rx + gap, ry - height // 2),
        (lx - gap - width, ly - height // 2),
    ]
    x, y, box_width, box_height = anchor.box_xywh
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS) - np.pi / 2
    distances = np.repeat(np.array(_DISTANCES) * height, _DIRECTIONS)
    across = np.tile(np.cos(angles), len(_DISTANCES)) * ((box_width + width) / 2 + distances)
    down = np.tile(np.sin(angles), len(_DISTANCES)) * ((box_height + height) / 2 + distances)
    away = np.stack((x + box_width / 2 + across - width / 2, y + box_height / 2 + down - height / 2), axis=1)
    return np.concatenate((np.array(near), np.rint(away).astype(np.int64)))


def _overlaps(boxes: NDArray[np.int64], taken: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each box `(n, 4)` shares a pixel with one of the boxes taken, or touches it: `(n,) bool`."""
    starts = np.maximum(boxes[:, None, :2], taken[None, :, :2])
    ends = np.minimum(boxes[:, None, 2:], taken[None, :, 2:])
    touching: NDArray[np.bool_] = (starts <= ends).all(2).any(1)
    return touching


def _place(box: NDArray[np.int64], anchor: Anchors, height: int) -> Place:
    """The place of a label, with a leader to the nearest point of its object if it is more than a label's height away."""
    points = np.array(anchor.points)
    outside = np.maximum(np.maximum(box[:2] - points, points - box[2:]), 0)
    distances = np.hypot(*outside.T)
    nearest = int(distances.argmin())
    leader_to = anchor.points[nearest] if distances[nearest] > height else None
    return Place(int(box[0]), int(box[1]), leader_to)


def _middle(line: NDArray[np.bool_]) -> int:
    """The middle one of the pixels that are set, or of all pixels if none is."""
    found = np.flatnonzero(line)
    return int(found[len(found) // 2]) if len(found) else len(line) // 2
