"""Masks of random networks: on the CPU, and on the emulated device as the host launches their kernels there."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from solo_models.bundle import Kernels, kernel_shapes
from solo_models.spec import ModelSpec, Variant
from solo_server.backends.cpu.masks import CellMasks, Measures
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.gpu.postprocess.batch import Batch, Counts
from solo_server.types import Float32, Int64, SoftMask
from support.gpu.emulator import Emulator, uninitialised

GRIDS = (9, 8, 7, 6, 5)
MAX_BEST, AT_ONCE = 16, 3
PADDED_96x160 = ((12, 20), (12, 20), (6, 10), (3, 5), (3, 5))  # strides 8 8 16 32 32

Bits = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scene:
    """What masks are made of. features: `[level][tower]`, `(N, C, h, w)`; cells: of each image, rising."""

    spec: ModelSpec
    kernels: Kernels
    features: list[list[Float32]]
    cells: list[Int64]

    @property
    def level_hw(self) -> list[tuple[int, int]]:
        return [(level[0].shape[2], level[0].shape[3]) for level in self.features]

    @property
    def mask_hw(self) -> tuple[int, int]:
        return 2 * self.level_hw[0][0], 2 * self.level_hw[0][1]

    def on_cpu(self, image: int, threshold: float) -> CellMasks:
        features = {i: [tower[image] for tower in level] for i, level in enumerate(self.features)}
        return CellMasks((self.spec, self.kernels), features, self.mask_hw, threshold, Pool(1))

    def measures(self, image: int, threshold: float) -> Measures:
        return self.on_cpu(image, threshold).measure(self.cells[image])

    def soft(self, image: int) -> Float32:
        """`(cells, H, W)`: with a threshold of zero soft masks are exact everywhere."""
        height, width = self.mask_hw

        def whole(mask: SoftMask | None) -> Float32:
            assert mask is not None
            assert mask.box.tolist() == [0, height, 0, width]
            return mask.values.reshape(-1, mask.step)[:height, :width].copy()

        return np.stack(self.on_cpu(image, 0.0).each(self.cells[image], whole))


@dataclass(frozen=True, slots=True)
class Measured:
    """Of all cells of one image. bits: `(cells, H, W)`; words: as the device has them, `(cells, W, words)`."""

    areas: NDArray[np.int32]
    totals: Float32
    boxes: NDArray[np.int32]
    words: NDArray[np.uint32]

    def bits(self, height: int) -> Bits:
        columns = np.unpackbits(self.words.view(np.uint8), axis=2, bitorder="little")[:, :, :height]
        return columns.transpose(0, 2, 1).astype(bool)


class DeviceMasks:
    """The device's memory for the masks of a scene, and the launches of one batch. Memory is garbage before it is written."""

    def __init__(
        self, scene: Scene, rows: int, tap_rows: int = 8, threshold: float = 0.5, emulator: Emulator | None = None
    ) -> None:
        self.scene, self.rows, self.tap_rows = scene, rows, tap_rows
        self.emulator = emulator or Emulator()
        self._inputs: list[NDArray[Any]] = []
        spec, (height, width), images = scene.spec, scene.mask_hw, len(scene.cells)
        self.sizes = [h * w for h, w in scene.level_hw]
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "logits": ((images, rows, self.sizes[0]), np.float32),
            "tap_logits": ((images, tap_rows, 9, self.sizes[0]), np.float32),
            "axis_maps": ((images, sum(self._axis_floats())), np.float32),
            "areas": ((images, spec.num_cells), np.int32),
            "totals": ((images, spec.num_cells), np.float32),
            "boxes": ((images, rows, 4), np.int32),
            "bits": ((images, rows, width, -(-height // 32)), np.uint32),
            "soft": ((images, AT_ONCE, height, width), np.float32),
        }
        self.memory = {name: uninitialised(*shape) for name, shape in shapes.items()}
        self.batch = Batch(**{name: memory.ctypes.data for name, memory in self.memory.items()})
        self.batch.mask_threshold = threshold
        self._set_sizes()
        self._set_network()
        self.counts = self._set_cells()

    def measure(self, with_bits: int = 1) -> list[Measured]:
        """All cells of all images, chunk by chunk."""
        self.make_axis_maps()
        boxes = [np.zeros((len(cells), 4), np.int32) for cells in self.scene.cells]
        words = [np.zeros((len(cells), *self.memory["bits"].shape[2:]), np.uint32) for cells in self.scene.cells]
        for first in range(0, max(1, *map(len, self.scene.cells)), self.rows):
            self.make_resident(first)
            self.emulator.launch("measure_cells", (self.rows, len(boxes)), 256, self.batch, with_bits)
            for p, cells in enumerate(self.scene.cells):
                there = max(0, min(self.rows, len(cells) - first))
                boxes[p][first : first + there] = self.memory["boxes"][p, :there]
                words[p][first : first + there] = self.memory["bits"][p, :there]
        areas, totals = self.memory["areas"], self.memory["totals"]
        return [
            Measured(areas[p, :n].copy(), totals[p, :n].copy(), boxes[p], words[p])
            for p, n in enumerate(map(len, self.scene.cells))
        ]

    def make_resident(self, first: int) -> None:
        """Put the cells of places `first ..` in work; SOLO's get their logits."""
        self.batch.first_place = first
        for level, size in enumerate(self.sizes):
            most = _most(self.counts, "level_first", level, first, self.rows)
            if most and not self.scene.spec.is_decoupled:
                grid = (-(-size // 64), -(-most // 64), len(self.scene.cells))
                self.emulator.launch("project", grid, 256, self.batch, level)

    def make_axis_maps(self) -> None:
        """Of decoupled heads, chunk by chunk of the list of axis maps."""
        if not self.scene.spec.is_decoupled:
            return
        images, last = len(self.scene.cells), 2 * len(GRIDS)
        ends = [count.axis_first[last] for count in self.counts]
        for first in range(0, max(ends), self.tap_rows):
            self.batch.first_axis = first
            for number in range(last):
                most = _most(self.counts, "axis_first", number, first, self.tap_rows)
                if most:
                    size, which = self.sizes[number // 2], divmod(number, 2)
                    taps_grid = (-(-size // 64), -(-9 * most // 64), images)
                    self.emulator.launch("project_taps", taps_grid, 256, self.batch, *which)
                    self.emulator.launch("axis_maps", (-(-4 * size // 256), most, images), 256, self.batch, *which)

    def soft_maps(
        self, best_places: Sequence[Sequence[int]], kept: Sequence[Sequence[int]], first_kept: int
    ) -> Float32:
        """`(N, E, H, W)`; best_places: of each image's best, kept: which of these, both in their order."""
        height, width = self.scene.mask_hw
        self._point("kept_count", np.array([len(k) for k in kept], np.int32))
        for name, lists in (("best_rows", best_places), ("kept", kept)):
            padded = uninitialised((len(lists), MAX_BEST), np.int32)
            for p, places in enumerate(lists):
                padded[p, : len(places)] = places
            self._point(name, padded)
        self.batch.first_kept = first_kept
        tiles = -(-height // 32) * -(-width // 64)
        self.emulator.launch("soft_maps", (tiles, AT_ONCE, len(kept)), 256, self.batch)
        return self.memory["soft"]

    def _axis_floats(self) -> list[int]:
        if not self.scene.spec.is_decoupled:
            return [1]
        return [2 * grid * 4 * size for grid, size in zip(GRIDS, self.sizes, strict=True)]

    def _set_sizes(self) -> None:
        spec, batch, (height, width) = self.scene.spec, self.batch, self.scene.mask_hw
        batch.images, batch.cells, batch.levels = len(self.scene.cells), spec.num_cells, len(GRIDS)
        batch.channels, batch.decoupled = spec.head_channels, int(spec.is_decoupled)
        batch.mask_h, batch.mask_w, batch.words = height, width, -(-height // 32)
        batch.rows, batch.tap_rows, batch.max_best, batch.at_once = self.rows, self.tap_rows, MAX_BEST, AT_ONCE
        batch.map_size, batch.axis_floats = self.sizes[0], sum(self._axis_floats())
        for level, (h, w) in enumerate(self.scene.level_hw):
            batch.grid[level], batch.stride[level] = GRIDS[level], spec.strides[level]
            batch.level_h[level], batch.level_w[level] = h, w
            batch.axis_offset[level] = sum(self._axis_floats()[:level])
        for level, first in enumerate(spec.first_cells):
            batch.first_cell[level] = first

    def _set_network(self) -> None:
        kernels, decoupled = self.scene.kernels, self.scene.spec.is_decoupled
        for level, towers in enumerate(self.scene.features):
            for i, suffix in enumerate(("_x", "_y") if decoupled else ("",)):
                weight, bias = kernels[f"level{level}{suffix}"], kernels[f"level{level}{suffix}_bias"]
                if decoupled:
                    weight = weight.transpose(0, 2, 3, 1).reshape(len(weight), 9, -1)
                self._point(f"kernels_{i}", weight, level)
                self._point(f"bias_{i}", bias, level)
                self._point(f"features_{i}", towers[min(i, len(towers) - 1)], level)

    def _set_cells(self) -> Any:
        """The lists of cells and axis maps of each image, and their counts."""
        spec, images = self.scene.spec, len(self.scene.cells)
        counts = (Counts * images)()
        cell_list = uninitialised((images, spec.num_cells), np.int32)
        axis_list = uninitialised((images, 2 * sum(GRIDS)), np.int32)
        for p, cells in enumerate(self.scene.cells):
            counts[p].cells = len(cells)
            cell_list[p, : len(cells)] = cells
            edges = np.searchsorted(cells, spec.first_cells).tolist()
            counts[p].level_first[: len(edges)] = edges
            lists = []
            for level, (first, last) in enumerate(pairwise(edges)):
                rows, columns = np.divmod(cells[first:last] - spec.first_cells[level], GRIDS[level])
                lists += [np.unique(columns), np.unique(rows)]
            counts[p].axis_first[: len(lists) + 1] = [0, *np.cumsum([len(part) for part in lists]).tolist()]
            flat = np.concatenate(lists)
            axis_list[p, : len(flat)] = flat
        self._point("cell_list", cell_list)
        self._point("axis_list", axis_list)
        self.batch.counts = ctypes.addressof(counts)
        return counts

    def _point(self, field: str, values: NDArray[Any], level: int | None = None) -> None:
        self._inputs.append(np.ascontiguousarray(values))
        if level is None:
            setattr(self.batch, field, self._inputs[-1].ctypes.data)
        else:
            getattr(self.batch, field)[level] = self._inputs[-1].ctypes.data


def _most(counts: Any, field: str, number: int, first: int, size: int) -> int:
    """The most that any image has of one level, or of one level and axis, among `size` in work from `first` on."""
    begins: list[list[int]] = [list(getattr(count, field)) for count in counts]
    return max(0, *(min(b[number + 1], first + size) - max(b[number], first) for b in begins))


def make_scene(
    variant: Variant = "solo",
    level_hw: Sequence[tuple[int, int]] = PADDED_96x160,
    channels: int = 8,
    counts: Sequence[int] = (20,),
    seed: int = 0,
) -> Scene:
    """Random masks; counts: cells of each image, of all levels."""
    rng = np.random.default_rng(seed)
    spec = ModelSpec(variant, "resnet18", ("cat",), GRIDS, head_channels=channels, norm_groups=8)
    scale = 4 / math.sqrt(channels)
    kernels = {
        name: (rng.standard_normal(shape) * (1.5 if len(shape) == 1 else scale)).astype(np.float32)
        for name, shape in kernel_shapes(spec).items()
    }
    towers = 2 if variant == "decoupled" else 1
    features = [
        [rng.random((len(counts), channels, h, w), np.float32) - np.float32(0.4) for _ in range(towers)]
        for h, w in level_hw
    ]
    cells = [np.sort(rng.permutation(spec.num_cells)[:count]) for count in counts]
    return Scene(spec, kernels, features, cells)


def flat_scene(logit: float, level_hw: Sequence[tuple[int, int]]) -> Scene:
    """Every mask has the same value everywhere; one cell of each level."""
    scene = make_scene(level_hw=level_hw)
    for name in scene.kernels:
        scene.kernels[name][:] = logit if name.endswith("bias") else 0
    return Scene(scene.spec, scene.kernels, scene.features, [np.array(scene.spec.first_cells[:-1])])
