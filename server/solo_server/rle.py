"""Soft masks to COCO run-length encodings at original size, without an array of the picture's size for each mask.

Two bilinear resizes (mask stride -> padded input, cropped -> original) are one banded matrix an axis. A pixel of the
result can exceed the threshold only where one of its taps does, so only the mask's own rows and columns are computed.
The format is that of COCO's maskApi.c: runs in column-major order, zeros first, six bits a character.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from solo_server.types import Float32, Geometry, Int64, Rle

BLOCK_PIXELS = 4_000_000
EMPTY_BOX = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Outline:
    """A binary mask at original size as runs. starts, ends: `(runs,) int64`, column-major positions, end exclusive."""

    hw: tuple[int, int]
    starts: Int64
    ends: Int64

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int((self.ends - self.starts).sum())

    def box_xywh(self) -> tuple[int, int, int, int]:
        """Smallest box that holds every pixel; zeros where there is none."""
        if len(self.starts) == 0:
            return EMPTY_BOX
        height = self.hw[0]
        first, last = int(self.starts[0]) // height, int(self.ends[-1] - 1) // height
        tops, bottoms = self.starts % height, (self.ends - 1) % height
        crosses = bool((self.starts // height != (self.ends - 1) // height).any())
        top, bottom = (0, height - 1) if crosses else (int(tops.min()), int(bottoms.max()))
        return (first, top, last - first + 1, bottom - top + 1)

    def rle(self) -> Rle:
        """The compressed form."""
        edges = np.empty(2 * len(self.starts) + 1, np.int64)
        edges[0:-1:2], edges[1:-1:2], edges[-1] = self.starts, self.ends, self.hw[0] * self.hw[1]
        counts = np.diff(edges, prepend=0)
        if len(counts) > 1 and counts[-1] == 0:
            counts = counts[:-1]
        return Rle(self.hw, compress(counts))


def outline_of_soft(soft: Float32, geometry: Geometry, stride: int, threshold: float) -> Outline:
    """Resize one soft mask to original size and binarise it.

    soft: `(h, w)` at the mask stride of the padded input, 0..1. The result is `> threshold`.
    """
    (original_h, original_w), (resized_h, resized_w) = geometry.original_hw, geometry.resized_hw
    above = soft > threshold
    rows = _reach(np.any(above, axis=1), soft.shape[0], stride, resized_h, original_h)
    columns = _reach(np.any(above, axis=0), soft.shape[1], stride, resized_w, original_w)
    if rows is None or columns is None:
        return Outline(geometry.original_hw, np.empty(0, np.int64), np.empty(0, np.int64))
    tall = rows.matrix @ soft[rows.taps, columns.taps]
    block = max(1, BLOCK_PIXELS // max(1, rows.stop - rows.start))
    parts = []
    for first in range(0, columns.stop - columns.start, block):
        inside = columns.matrix[first : first + block] @ tall.T > threshold
        parts.append(_runs(inside, columns.start + first, rows.start, original_h))
    return _merge(geometry.original_hw, parts)


def outline_of_binary(mask: NDArray[np.bool_]) -> Outline:
    """Runs of a mask `(H, W) bool`; H, W >= 1."""
    return _merge((mask.shape[0], mask.shape[1]), [_runs(np.ascontiguousarray(mask.T), 0, 0, mask.shape[0])])


def compress(counts: Int64) -> str:
    """Run lengths to COCO's string: each is stored as the difference to the one two before, from the fourth on."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    digits, rest = [], values
    unfinished = np.ones(len(values), bool)
    masks = []
    while unfinished.any():
        digit, rest = rest & 31, rest >> 5
        done = ((rest == 0) & (digit & 16 == 0)) | ((rest == -1) & (digit & 16 != 0))
        digits.append(np.where(done, digit, digit | 32) + 48)
        masks.append(unfinished)
        unfinished = unfinished & ~done
    table, kept = np.stack(digits, 1), np.stack(masks, 1)
    return bytes(table[kept].astype(np.uint8)).decode("ascii")


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """The mask `(H, W) bool` of an encoding that `compress` made."""
    digits = np.frombuffer(rle.counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    last = digits & 32 == 0
    first = np.flatnonzero(np.r_[True, last[:-1]])
    place = np.arange(len(digits)) - np.repeat(first, np.diff(np.r_[first, len(digits)]))
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= np.where(digits[last] & 16, 1 << (5 * (place[last] + 1)), 0)
    for parity in (1, 2):
        values[parity::2] = np.cumsum(values[parity::2])
    bits = np.repeat(np.arange(len(values)) % 2 == 1, values)
    return bits.reshape(rle.size[1], rle.size[0]).T


@lru_cache(maxsize=256)
def resize_matrix(length: int, stride: int, resized: int, original: int) -> Float32:
    """Both bilinear steps of one axis, `(original, length) float32`; rows sum to one.

    The first goes from `length` to `length * stride` and is cropped to `resized`; the second from there to `original`.
    """
    first = bilinear_matrix(length, length * stride)[:resized]
    low, high, weight = _taps(resized, original)
    return np.ascontiguousarray(first[low] * (1 - weight)[:, None] + first[high] * weight[:, None], dtype=np.float32)


def bilinear_matrix(length: int, target: int) -> NDArray[np.float64]:
    """Bilinear interpolation (half-pixel centres, edges repeated) as a matrix `(target, length)`."""
    low, high, weight = _taps(length, target)
    matrix = np.zeros((target, length))
    np.add.at(matrix, (np.arange(target), low), 1 - weight)
    np.add.at(matrix, (np.arange(target), high), weight)
    return matrix


@dataclass(frozen=True, slots=True)
class _Reach:
    start: int
    stop: int
    taps: slice
    matrix: Float32


def _taps(length: int, target: int) -> tuple[Int64, Int64, NDArray[np.float64]]:
    position = np.maximum((np.arange(target) + 0.5) * (length / target) - 0.5, 0)
    low = np.minimum(position.astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1), position - low


def _reach(above: NDArray[np.bool_], length: int, stride: int, resized: int, original: int) -> _Reach | None:
    """The target positions that a tap above the threshold can reach."""
    marked = np.flatnonzero(above)
    if len(marked) == 0:
        return None
    matrix = resize_matrix(length, stride, resized, original)
    touched = np.flatnonzero(matrix[:, marked[0] : marked[-1] + 1].any(1))
    if len(touched) == 0:
        return None
    start, stop = int(touched[0]), int(touched[-1]) + 1
    used = np.flatnonzero(matrix[start:stop].any(0))
    taps = slice(int(used[0]), int(used[-1]) + 1)
    return _Reach(start, stop, taps, np.ascontiguousarray(matrix[start:stop, taps]))


def _runs(inside: NDArray[np.bool_], first_column: int, first_row: int, height: int) -> tuple[Int64, Int64]:
    """Runs along the rows of `inside` `(columns, rows)` as positions in the whole column-major picture."""
    columns, rows = inside.shape
    framed = np.zeros((columns, rows + 2), np.int8)
    framed[:, 1:-1] = inside
    change = np.diff(framed, axis=1)
    column_starts, row_starts = np.nonzero(change == 1)
    column_ends, row_ends = np.nonzero(change == -1)
    starts = (column_starts + first_column) * height + row_starts + first_row
    return starts, (column_ends + first_column) * height + row_ends + first_row


def _merge(hw: tuple[int, int], parts: list[tuple[Int64, Int64]]) -> Outline:
    starts, ends = (np.concatenate(side) for side in zip(*parts, strict=True))
    joined = starts[1:] == ends[:-1]
    return Outline(hw, starts[np.r_[True, ~joined][: len(starts)]], ends[np.r_[~joined, True][: len(ends)]])
