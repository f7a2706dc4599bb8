"""Masks of the selected cells only, not of all cells.

    mask features of a level ─► logits, or row and column maps ─► soft mask at the mask stride ─► bits, area, maskness; encoding

A 1x1 convolution and bilinear upsampling commute, so the last mask convolution of SOLO runs at the level's own resolution, with
the kernels of the selected cells, `(n, C) @ (C, h*w)`. A 3x3 convolution of the upsampled map (decoupled heads) is the sum over
its nine taps of 1x1 convolutions, each upsampled and shifted: nine small products instead of a convolution at four times the
area, and only for the rows and columns of selected cells. Sigmoid and the resize to the mask stride follow, in the reference's
order (mmdet `solo_head.py`). Each core has one soft mask at a time, while it is measured or encoded; computing it twice takes
less than keeping it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from solo_models.bundle import Kernels
from solo_models.spec import ModelSpec

from solo_server.backends.bilinear_taps import bilinear_taps
from solo_server.backends.cpu.kernels.cell_masks import axis_maps, mask_of_logits, measure_logits, measure_products
from solo_server.backends.cpu.kernels.nms import words_per_row
from solo_server.backends.cpu.kernels.soft_masks import SPARE, multiply_axis_maps, padded_width
from solo_server.backends.cpu.pool import Pool
from solo_server.errors import EngineFailure
from solo_server.types import Float32, Int64, SoftMask

CELLS_AT_ONCE, MAPS_AT_ONCE = 32, 8
LOGIT_MARGIN = 1e-3  # logits less than this below the threshold's logit count as able to exceed it

R = TypeVar("R")
Features = Mapping[int, Sequence[Float32]]


@dataclass(frozen=True, slots=True)
class Measures:
    """Measures of `n` masks; see `MaskedCandidates`. maskness: `(n,) float32`, mean of the values above the threshold."""

    areas: Int64
    maskness: Float32
    bits: NDArray[np.uint64]
    boxes: Int64


@dataclass(frozen=True, slots=True)
class _Piece:
    """Requested cells `first..last`, all of one level; within: their numbers inside the level's grid."""

    level: int
    first: int
    last: int
    within: Int64


@dataclass(frozen=True, slots=True)
class _AxisMaps:
    """Maps of the rows or columns of selected cells. numbers: of these, ascending; maps: `(n, rows * step)`; boxes: `(n, 4)`."""

    numbers: Int64
    maps: Float32
    boxes: Int64


class CellMasks:
    """Masks of the cells of one image.

    features: level -> the mask towers' outputs `[(C, h, w)]`, one or two; mask_hw: size of the masks, at the mask stride of the
    padded input; threshold: mask pixels exceed it.
    """

    def __init__(
        self,
        model: tuple[ModelSpec, Kernels],
        features: Features,
        mask_hw: tuple[int, int],
        threshold: float,
        pool: Pool,
    ) -> None:
        self._spec, self._kernels = model
        _check(self._spec, features)
        self._features, self._hw, self._pool = features, mask_hw, pool
        self._threshold, self._logit_limit = np.float32(threshold), _logit_limit(threshold)
        self._step = padded_width(mask_hw[1])
        self._axis_maps: dict[tuple[int, str], _AxisMaps] = {}

    def measure(self, cells: Int64) -> Measures:
        """Bits, areas and maskness of `(n,)` cells in ascending order; n = 0 gives empty arrays."""
        n, words = len(cells), words_per_row(self._hw[1])
        bits = np.zeros((n, self._hw[0], words), np.uint64)
        areas, totals, boxes = np.zeros(n, np.int64), np.zeros(n, np.float32), np.zeros((n, 4), np.int64)
        pieces = self._pieces(cells)
        self._prepare_axis_maps(pieces)

        def measure_piece(piece: _Piece) -> None:
            part = slice(piece.first, piece.last)
            out = (bits.view(np.uint8)[part], areas[part], totals[part], boxes[part])
            if self._spec.is_decoupled:
                x, y, pairs = self._factors(piece)
                factors = (x.maps, x.boxes, y.maps, y.boxes, pairs)
                measure_products(*factors, self._hw, self._step, self._threshold, *out)
            else:
                plan = self._plan(piece.level)
                measure_logits(
                    self._logits(piece), plan.shape, self._logit_limit, plan.rows, plan.columns, self._threshold, *out
                )

        self._pool.map(measure_piece, pieces)
        return Measures(areas, (totals / np.maximum(areas, 1)).astype(np.float32), bits, boxes)

    def each(self, cells: Int64, work: Callable[[SoftMask | None], R]) -> list[R]:
        """`work` of the soft mask of each cell, in ascending order, on all cores; `None` where nothing exceeds the threshold."""
        pieces = self._pieces(cells)
        self._prepare_axis_maps(pieces)
        masks = self._product_masks if self._spec.is_decoupled else self._logit_masks
        by_piece = self._pool.map(lambda piece: [work(mask) for mask in masks(piece)], pieces)
        return [result for results in by_piece for result in results]

    def _pieces(self, cells: Int64) -> list[_Piece]:
        """Cells by level, in pieces small enough to keep all cores busy and to bound memory."""
        pieces, edges = [], np.searchsorted(cells, self._spec.first_cells)
        size = min(CELLS_AT_ONCE, max(4, -(-len(cells) // (2 * self._pool.threads))))
        for level, (start, end) in enumerate(pairwise(edges.tolist())):
            for first in range(start, end, size):
                last = min(end, first + size)
                pieces.append(_Piece(level, first, last, cells[first:last] - self._spec.first_cells[level]))
        return pieces

    def _plan(self, level: int) -> _LevelPlan:
        _, h, w = self._features[level][0].shape
        return _plan_level(h, w, self._hw)

    def _logits(self, piece: _Piece) -> Float32:
        """`(n, h * w)` logits of SOLO's cells at the level's own resolution."""
        feature = self._features[piece.level][0]
        kernels, bias = self._kernels[f"level{piece.level}"], self._kernels[f"level{piece.level}_bias"]
        logits: Float32 = kernels[piece.within] @ feature.reshape(feature.shape[0], -1)
        logits += bias[piece.within, None]
        return logits

    def _logit_masks(self, piece: _Piece) -> Iterator[SoftMask | None]:
        plan, logits = self._plan(piece.level), self._logits(piece)
        height, width, doubled_step, _ = plan.shape
        doubled = np.zeros((2 * height + SPARE) * doubled_step, np.float32)
        soft, scratch = self._empty(), np.zeros(5 * width + 64, np.float32)
        flat = logits.ravel()
        for i in range(len(logits)):
            box, start = np.zeros((2, 4), np.int64), i * height * width
            is_any = mask_of_logits(
                flat, start, plan.shape, self._logit_limit, plan.rows, plan.columns, doubled, soft, box, scratch
            )
            yield SoftMask(soft, self._step, box[0]) if is_any else None

    def _product_masks(self, piece: _Piece) -> Iterator[SoftMask | None]:
        x, y, pairs = self._factors(piece)
        soft = self._empty()
        for i, j in pairs.tolist():
            box = np.zeros(4, np.int64)
            is_any = multiply_axis_maps(x.maps[i], y.maps[j], self._step, x.boxes[i], y.boxes[j], *self._hw, soft, box)
            yield SoftMask(soft, self._step, box) if is_any else None

    def _empty(self) -> Float32:
        return np.zeros((self._hw[0] + SPARE) * self._step, np.float32)

    def _factors(self, piece: _Piece) -> tuple[_AxisMaps, _AxisMaps, Int64]:
        """Column and row maps of a level, and for each cell the indices of its two maps, `(n, 2)`."""
        rows, columns = np.divmod(piece.within, self._spec.grids[piece.level])
        x, y = self._axis_maps[piece.level, "x"], self._axis_maps[piece.level, "y"]
        pairs = np.stack([np.searchsorted(x.numbers, columns), np.searchsorted(y.numbers, rows)], axis=1)
        return x, y, pairs

    def _prepare_axis_maps(self, pieces: Sequence[_Piece]) -> None:
        """Compute the row and column maps that the pieces need and that are not computed yet."""
        if not self._spec.is_decoupled:
            return
        jobs = []
        for level in sorted({piece.level for piece in pieces}):
            within = np.concatenate([piece.within for piece in pieces if piece.level == level])
            for axis, of_cells in zip(
                "xy", (within % self._spec.grids[level], within // self._spec.grids[level]), strict=True
            ):
                numbers = np.unique(of_cells)
                known = self._axis_maps.get((level, axis))
                if known is not None and np.isin(numbers, known.numbers).all():
                    continue
                maps = _AxisMaps(
                    numbers,
                    np.zeros((len(numbers), (self._hw[0] + SPARE) * self._step), np.float32),
                    np.zeros((len(numbers), 4), np.int64),
                )
                self._axis_maps[level, axis] = maps
                jobs += [(level, axis, first) for first in range(0, len(numbers), MAPS_AT_ONCE)]
        self._pool.map(self._fill_axis_maps, jobs)

    def _fill_axis_maps(self, job: tuple[int, str, int]) -> None:
        level, axis, first = job
        maps, plan = self._axis_maps[level, axis], self._plan(level)
        part = slice(first, first + MAPS_AT_ONCE)
        numbers, feature = maps.numbers[part], self._features[level][0 if axis == "x" else -1]
        channels = feature.shape[0]
        weight = self._kernels[f"level{level}_{axis}"][numbers].transpose(0, 2, 3, 1).reshape(-1, channels)
        taps = (weight @ feature.reshape(channels, -1)).reshape(len(numbers), 9, -1)
        bias = self._kernels[f"level{level}_{axis}_bias"][numbers]
        axis_maps(taps, bias, plan.shape, plan.rows, plan.columns, self._threshold, maps.maps[part], maps.boxes[part])


def _check(spec: ModelSpec, features: Features) -> None:
    """Check the shapes that a graph returned: kernels do not check indices."""
    for level, maps in features.items():
        shapes = {feature.shape for feature in maps}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 3 or shape[0] != spec.head_channels:
            raise EngineFailure(f"mask features of level {level} are {[feature.shape for feature in maps]}")


@dataclass(frozen=True, slots=True)
class _LevelPlan:
    """How to get from one level's features to masks.

    shape: height and width of the features, row lengths of doubled map and mask; rows, columns: taps from doubled map to mask.
    """

    shape: tuple[int, int, int, int]
    rows: tuple[Int64, Int64, Float32]
    columns: tuple[Int64, Int64, Float32]


@lru_cache(maxsize=256)
def _plan_level(height: int, width: int, mask_hw: tuple[int, int]) -> _LevelPlan:
    shape = (height, width, padded_width(2 * width), padded_width(mask_hw[1]))
    return _LevelPlan(shape, _taps(2 * height, mask_hw[0]), _taps(2 * width, mask_hw[1]))


def _taps(length: int, target: int) -> tuple[Int64, Int64, Float32]:
    low, high, weight = bilinear_taps(length, target)
    return low, high, weight.astype(np.float32)


def _logit_limit(threshold: float) -> np.float32:
    """A logit such that values of smaller ones never exceed the threshold, with a margin for rounding."""
    if threshold <= 0:
        return np.float32(-np.inf)
    return np.float32(np.inf) if threshold >= 1 else np.float32(math.log(threshold / (1 - threshold)) - LOGIT_MARGIN)
