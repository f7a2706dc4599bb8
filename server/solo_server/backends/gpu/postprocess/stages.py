"""Queues the kernels of each stage: which kernels, with which grids, in how many chunks. Never waits for the device.

    candidates ─► (host reads Counts) ─► masks ─► best ─► nms ─► encode (again for later passes) ─► write_window (again)

Grids follow `Counts` where it is known, so that few threads are idle; kernels check every index themselves.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solo_server.backends.gpu.driver.base import DeviceBuffer, Kernel, Stream
from solo_server.backends.gpu.network import FLOAT_BYTES
from solo_server.backends.gpu.postprocess.batch import FoundInstance
from solo_server.backends.gpu.postprocess.memory import ENCODE_WARPS, SEGMENT, ResultLayout

KERNELS = (
    "count_candidates", "scan_candidates", "write_candidates", "list_axes",
    "project", "project_taps", "axis_maps", "measure_cells", "soft_maps",
    "select_top", "list_top_cells",
    "intersect", "relief", "decay", "overlap_rows", "greedy_keep", "select_kept",
    "count_runs", "scan_runs", "write_runs",
)  # fmt: skip
BLOCK, WIDE_BLOCK = 256, 1024
CELLS_A_BLOCK = 8  # candidates.cuh
PRODUCT_TILE, AXIS_TAPS, AXIS_PIXELS = 64, 9, 256  # axis.cuh
MASK_TILE_COLUMNS = 64  # masks.cuh
IOU_TILE, OVERLAP_ROWS = 32, 8  # nms.cuh

CountsArray = NDArray[np.void]


class Stages:
    """The kernels of one batch on one stream. batch: their argument; its chunk, pass and window change between launches."""

    def __init__(self, stream: Stream, kernels: Mapping[str, Kernel], batch: Any) -> None:
        self._stream, self._kernels, self._batch = stream, kernels, batch
        self._encoded = (0, 0, 0)  # grid of the last pass

    def candidates(self) -> None:
        """Scores to candidates, cells and `Counts`."""
        batch = self._batch
        blocks = _ceil(batch.cells, CELLS_A_BLOCK)
        self._launch("count_candidates", (blocks, batch.images, 1), BLOCK)
        self._launch("scan_candidates", (batch.images, 1, 1), WIDE_BLOCK)
        self._launch("write_candidates", (blocks, batch.images, 1), BLOCK)
        if batch.decoupled:
            self._launch("list_axes", (batch.images, 1, 1), BLOCK)

    def masks(self, counts: CountsArray) -> None:
        """Areas and totals of all cells; also their bits, where all cells of each image fit."""
        if self._batch.decoupled:
            self._axis_maps(counts["axis_first"])
        most, rows = int(counts["cells"].max()), self._batch.rows
        for first in range(0, most, rows):
            self._measure(_clipped(counts["level_first"], first, rows), first, min(rows, most - first), most <= rows)

    def best(self, counts: CountsArray) -> None:
        """The best candidates, and their bits unless `masks` wrote them."""
        images, rows, most = self._batch.images, self._batch.rows, int(counts["cells"].max())
        self._launch("select_top", (images, 1, 1), WIDE_BLOCK)
        if most > rows:
            self._launch("list_top_cells", (images, 1, 1), WIDE_BLOCK)
            best = self._batch.max_best  # only the device knows how many of them are of which level
            self._measure(np.minimum(np.diff(counts["level_first"]), best), 0, min(best, most), True)

    def nms(self, counts: CountsArray, methods: set[str]) -> None:
        """The method of each image, then the final selection. methods: all that the batch uses."""
        images, best = self._batch.images, min(self._batch.max_best, int(counts["candidates"].max()))
        tiles = _ceil(best, IOU_TILE)
        if methods != {"none"}:
            self._launch("intersect", (tiles, tiles, images), BLOCK)
        if "matrix" in methods:
            self._launch("relief", (tiles, images, 1), BLOCK)
            self._launch("decay", (tiles, images, 1), BLOCK)
        if "mask" in methods:
            self._launch("overlap_rows", (_ceil(best, OVERLAP_ROWS), images, 1), BLOCK)
            self._launch("greedy_keep", (images, 1, 1), WIDE_BLOCK)
        self._launch("select_kept", (images, 1, 1), WIDE_BLOCK)

    def encode(self, results: DeviceBuffer, layout: ResultLayout, first_kept: int, instances: int, widest: int) -> None:
        """One pass and its first window. instances: the most of any image; widest: width of the widest original, in pixels."""
        batch, images = self._batch, self._batch.images
        batch.first_kept, batch.first_run = first_kept, 0
        self._encoded = (_ceil(widest, SEGMENT), min(instances, batch.at_once), images)
        self._stream.clear(results, images * batch.at_once * ctypes.sizeof(FoundInstance), layout.found)
        tiles = batch.words * _ceil(batch.mask_w, MASK_TILE_COLUMNS)
        self._launch("soft_maps", (tiles, *self._encoded[1:]), BLOCK)
        self._launch("count_runs", self._encoded, BLOCK, shared_bytes=self._line_bytes())
        self._launch("scan_runs", (1, 1, 1), WIDE_BLOCK)
        self.write_window(0)

    def write_window(self, first_run: int) -> None:
        """Positions from number `first_run` of the last pass, as many as fit."""
        self._batch.first_run = first_run
        self._launch("write_runs", self._encoded, BLOCK, shared_bytes=self._line_bytes())

    def _line_bytes(self) -> int:
        return ENCODE_WARPS * FLOAT_BYTES * int(self._batch.mask_h)

    def _measure(self, of_levels: NDArray[np.int32], first: int, most: int, with_bits: bool) -> None:
        """One chunk of cells from place `first` of the list. of_levels: `(N, levels)` cells at most; most: cells of an image."""
        self._batch.first_place = first
        if not self._batch.decoupled:
            for level, cells in enumerate(of_levels.max(0).tolist()):
                grid = (_ceil(self._pixels(level), PRODUCT_TILE), _ceil(cells, PRODUCT_TILE), self._batch.images)
                self._launch("project", grid, BLOCK, level)
        self._launch("measure_cells", (most, self._batch.images, 1), BLOCK, int(with_bits))

    def _axis_maps(self, axis_first: NDArray[np.int32]) -> None:
        for first in range(0, int(axis_first.max()), self._batch.tap_rows):
            self._batch.first_axis = first
            for number, maps in enumerate(_clipped(axis_first, first, self._batch.tap_rows).max(0).tolist()):
                level, axis = divmod(number, 2)
                if maps == 0:
                    continue
                pixels, images = self._pixels(level), self._batch.images
                tiles = (_ceil(pixels, PRODUCT_TILE), _ceil(AXIS_TAPS * maps, PRODUCT_TILE), images)
                self._launch("project_taps", tiles, BLOCK, level, axis)
                self._launch("axis_maps", (_ceil(4 * pixels, AXIS_PIXELS), maps, images), BLOCK, level, axis)

    def _pixels(self, level: int) -> int:
        return int(self._batch.level_h[level] * self._batch.level_w[level])

    def _launch(self, name: str, grid: tuple[int, int, int], block: int, *ints: int, shared_bytes: int = 0) -> None:
        if 0 in grid:
            return
        arguments = (self._batch, *map(ctypes.c_int32, ints))
        self._stream.launch(self._kernels[name], grid, (block, 1, 1), arguments, shared_bytes)


def _clipped(firsts: NDArray[np.int32], start: int, count: int) -> NDArray[np.int32]:
    """How many of each list between `firsts (N, lists + 1)` lie in `start .. start + count`, `(N, lists)`."""
    inside = np.clip(firsts, start, start + count)
    return inside[:, 1:] - inside[:, :-1]


def _ceil(count: int, size: int) -> int:
    return -(-int(count) // size)
