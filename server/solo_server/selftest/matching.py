"""Matches the instances of two results for one image, and measures how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from solo_results.rle import decode_rle

from solo_server.types import Instance

LEAST_IOU = 0.5  # of two masks that count as the same instance


@dataclass(frozen=True, slots=True)
class Pair:
    """An instance that both have. pixels: how many differ; is_identical: the encodings are equal, character by character."""

    expected: int
    found: int
    iou: float
    pixels: int
    score_difference: float
    is_identical: bool


@dataclass(frozen=True, slots=True)
class Agreement:
    """missing: indices of expected instances without a match; extra: indices of found ones without a match."""

    pairs: tuple[Pair, ...]
    missing: tuple[int, ...]
    extra: tuple[int, ...]


def match(expected: Sequence[Instance], found: Sequence[Instance]) -> Agreement:
    """Pairs of one class, matched in the order of falling mask IoU."""
    masks = ([decode_rle(i.mask) for i in expected], [decode_rle(i.mask) for i in found])
    possible = sorted(_possible_pairs(expected, found, masks), key=lambda pair: (-pair.iou, pair.score_difference))
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for pair in possible:
        if pair.expected not in taken[0] and pair.found not in taken[1]:
            pairs.append(pair)
            taken[0].add(pair.expected)
            taken[1].add(pair.found)
    missing = tuple(i for i in range(len(expected)) if i not in taken[0])
    return Agreement(tuple(pairs), missing, tuple(j for j in range(len(found)) if j not in taken[1]))


def _possible_pairs(
    expected: Sequence[Instance],
    found: Sequence[Instance],
    masks: tuple[list[NDArray[np.bool_]], list[NDArray[np.bool_]]],
) -> list[Pair]:
    pairs = []
    for i, one in enumerate(expected):
        for j, other in enumerate(found):
            if one.class_id != other.class_id or not _boxes_meet(one, other):
                continue
            iou, pixels = _compare(masks[0][i], masks[1][j])
            if iou >= LEAST_IOU:
                pairs.append(Pair(i, j, iou, pixels, abs(one.score - other.score), one.mask == other.mask))
    return pairs


def _boxes_meet(one: Instance, other: Instance) -> bool:
    """Two empty masks meet too."""
    if one.area == 0 or other.area == 0:
        return one.area == other.area
    (x, y, w, h), (left, top, width, height) = one.box_xywh, other.box_xywh
    return x < left + width and left < x + w and y < top + height and top < y + h


def _compare(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[float, int]:
    """IoU (1 for two empty masks), and how many pixels differ."""
    shared, either = int((one & other).sum()), int((one | other).sum())
    return (shared / either if either else 1.0), either - shared
