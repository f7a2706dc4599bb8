"""What the GPU path has to do for one image, counted: every launch with its operations and bytes, and the network's values.

Launches are those that the production code queues: `Stages` runs here on a stream that only notes them, for `Counts` of an assumed
image. Operations and bytes of a launch follow from its grid and the arrays that its kernel reads and writes (batch.cuh).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from solo_models.arithmetic import TOWER_INPUTS, Hw
from solo_models.spec import RESNET_BLOCKS, ModelSpec
from solo_server.backends.gpu.network import BatchShape, NetworkMemory, level_groups, network_layout
from solo_server.backends.gpu.postprocess.batch import Counts
from solo_server.backends.gpu.postprocess.memory import (
    CudaLimits,
    PostprocessMemory,
    describe_batch,
    result_layout,
    sizes_of,
    slot_bytes,
)
from solo_server.backends.gpu.postprocess.stages import KERNELS, Stages

SIGMOID, BLEND = 12, 8  # operations of one of each
TILE = 64  # of a product: how often its other factor is read
FLOAT, WORD = 4, 4


@dataclass(frozen=True, slots=True)
class Scene:
    """The image that is assumed: a crowded one. cells: on each level; candidates: cells with two classes count twice."""

    original_hw: Hw = (480, 640)
    cells: int = 80
    candidates: int = 600
    kept: int = 100
    same_class: float = 1.0  # share of pairs that are of one class: all, which is the worst


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch, counted."""

    kernel: str
    blocks: int
    threads: int
    shared_bytes: int
    operations: float
    bytes: float


@dataclass(frozen=True, slots=True)
class _Nowhere:
    """Stands for a buffer."""

    address: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


class _Notes:
    """A stream that notes launches and does nothing."""

    def __init__(self) -> None:
        self.launches: list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...], int]] = []

    def launch(
        self,
        kernel: _Name,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: tuple[Any, ...],
        shared_bytes: int = 0,
    ) -> None:
        if 0 not in grid:
            ints = tuple(int(each.value) for each in arguments if isinstance(each, ctypes.c_int32))
            self.launches.append((kernel.name, grid, block, ints, shared_bytes))

    def clear(self, *_: Any) -> None:
        """No kernel of ours."""

    def capture(self) -> AbstractContextManager[Any]:
        """Never asked for."""
        raise NotImplementedError


def launches(spec: ModelSpec, padded_hw: Hw, scene: Scene) -> list[Launch]:
    """All of one image, in order."""
    shape, limits = BatchShape(1, padded_hw), CudaLimits()
    sizes = sizes_of(spec, limits, shape)
    nowhere = _Nowhere()
    memory = PostprocessMemory(dict.fromkeys(slot_bytes(spec, limits, (shape,)), nowhere), {})  # type: ignore[arg-type]
    network = NetworkMemory(*([nowhere] * 5))  # type: ignore[arg-type]
    batch = describe_batch(spec, sizes, memory, network, {})
    notes, counts = _Notes(), _counts(spec, scene)
    stages = Stages(notes, {name: _Name(name) for name in KERNELS}, batch)  # type: ignore[arg-type]
    stages.candidates()
    stages.masks(counts)
    stages.best(counts)
    stages.nms(counts, {spec.postprocess.nms})
    stages.encode(nowhere, result_layout(sizes), 0, scene.kept, scene.original_hw[1])  # type: ignore[arg-type]
    work = _Work(spec, padded_hw, scene)
    return [
        Launch(name, prod(grid), prod(block), shared, *work.of(name, ints))
        for name, grid, block, ints, shared in notes.launches
    ]


def _counts(spec: ModelSpec, scene: Scene) -> Any:
    """As the device would have counted: the same number of cells on every level, on an axis as many maps as that takes."""
    counts = np.zeros(1, np.dtype(Counts))
    levels = len(spec.grids)
    cells = [min(scene.cells, grid * grid) for grid in spec.grids]
    maps = [min(grid, scene.cells) for grid in spec.grids for _ in "xy"]
    counts["candidates"], counts["cells"] = scene.candidates, sum(cells)
    counts["level_first"][0, : levels + 1] = np.cumsum([0, *cells])
    counts["axis_first"][0, : 2 * levels + 1] = np.cumsum([0, *maps])
    return counts


class _Work:
    """Operations and bytes of each kernel's launch."""

    def __init__(self, spec: ModelSpec, padded_hw: Hw, scene: Scene) -> None:
        self._spec, self._scene = spec, scene
        self._level_hw = network_layout(spec, BatchShape(1, padded_hw)).level_hw
        self._mask = (padded_hw[0] // spec.mask_stride) * (padded_hw[1] // spec.mask_stride)
        self._bits = self._mask // 8
        self._scores = spec.num_cells * spec.num_classes
        self._best = min(spec.postprocess.max_before_nms, scene.candidates)
        self._cells = sum(min(scene.cells, grid * grid) for grid in spec.grids)

    def of(self, kernel: str, ints: tuple[int, ...]) -> tuple[float, float]:
        """Operations and bytes of one launch with these numbers (level, axis, ...)."""
        by_kernel: dict[str, Callable[..., tuple[float, float]]] = {
            "project": self._project,
            "project_taps": self._project_taps,
            "axis_maps": self._axis_maps,
        }
        if kernel in by_kernel:
            return by_kernel[kernel](*ints)
        return self._others()[kernel]

    def _project(self, level: int) -> tuple[float, float]:
        cells, pixels = self._of_level(level)
        return self._product(cells, pixels)

    def _project_taps(self, level: int, axis: int) -> tuple[float, float]:
        return self._product(9 * self._maps(level), self._of_level(level)[1])

    def _axis_maps(self, level: int, axis: int) -> tuple[float, float]:
        maps, pixels = self._maps(level), self._of_level(level)[1]
        return 4 * pixels * maps * (9 * BLEND + SIGMOID), (9 + 4) * pixels * maps * FLOAT

    def _product(self, rows: int, pixels: int) -> tuple[float, float]:
        """rows x channels times channels x pixels, each factor read once for each tile of the other."""
        channels = self._spec.head_channels
        read = channels * (pixels * -(-rows // TILE) + rows * -(-pixels // TILE))
        return 2 * rows * channels * pixels, (read + rows * pixels) * FLOAT

    def _others(self) -> dict[str, tuple[float, float]]:
        spec, scene, best = self._spec, self._scene, self._best
        cells, mask, pairs = self._cells, self._mask, best * best / 2 * self._scene.same_class
        original = scene.original_hw[0] * scene.original_hw[1]
        doubled = sum(4 * h * w for h, w in self._level_hw) / len(self._level_hw)
        planes = 2 if spec.is_decoupled else 1
        soft = planes * (mask * BLEND + (0 if spec.is_decoupled else doubled * (BLEND + SIGMOID)))
        logits = doubled / 4 * FLOAT * (8 if spec.is_decoupled else 1)
        walk = scene.kept * original * 6 * 2
        return {
            "count_candidates": (self._scores, self._scores * FLOAT),
            "scan_candidates": (4 * spec.num_cells, 4 * spec.num_cells * WORD),
            "write_candidates": (self._scores, self._scores * FLOAT + scene.candidates * 12),
            "list_axes": (cells * 4, cells * WORD),
            "measure_cells": (cells * (soft + 3 * mask), cells * (logits + self._bits)),
            "select_top": (scene.candidates * 64, scene.candidates * 16 * 8),
            "list_top_cells": (best * 16, best * 16),
            "intersect": (pairs * self._bits / WORD * 3, best * -(-best // 32) / 2 * self._bits + best * best * FLOAT),
            "relief": (pairs * 2, best * best * FLOAT),
            "decay": (pairs * 2 * SIGMOID, best * best * FLOAT),
            "overlap_rows": (pairs * 2, best * best * FLOAT),
            "greedy_keep": (best * best / 32, best * best / 8),
            "select_kept": (best * 64, best * 12),
            "soft_maps": (scene.kept * soft, scene.kept * (logits + mask * FLOAT)),
            "count_runs": (walk, scene.kept * mask * FLOAT),
            "scan_runs": (scene.kept * 64, scene.kept * 64 * WORD),
            "write_runs": (walk, scene.kept * mask * FLOAT),
        }

    def _of_level(self, level: int) -> tuple[int, int]:
        h, w = self._level_hw[level]
        return min(self._scene.cells, self._spec.grids[level] ** 2), h * w

    def _maps(self, level: int) -> int:
        return min(self._spec.grids[level], self._scene.cells)


def network_values(spec: ModelSpec, padded_hw: Hw) -> dict[str, int]:
    """Values that each part of a ResNet network reads and writes: every convolution's input, output and weights once.

    GroupNorm reads and writes its map once more; BatchNorm and activations are folded in.
    """
    return {
        "backbone": _backbone(spec, padded_hw),
        "neck": _neck(spec, padded_hw),
        "categories": _categories(spec),
        "towers": sum(_towers(spec, padded_hw, stride) for stride in spec.strides),
    }


def network_kernels(spec: ModelSpec) -> int:
    """At least so many: one a convolution, one more for each GroupNorm, one for each resize to a grid or a level's size."""
    backbone = 1 + 1 + sum(3 * blocks + 1 for blocks in RESNET_BLOCKS[spec.backbone])
    levels, groups, towers = len(spec.grids), len(level_groups(spec)), len(TOWER_INPUTS[spec.variant])
    head = levels * (2 * spec.head_depth + 3) + groups * towers * 2 * spec.head_depth
    return backbone + 3 * levels + head


def _at(padded_hw: Hw, stride: int) -> int:
    return (padded_hw[0] // stride) * (padded_hw[1] // stride)


def _backbone(spec: ModelSpec, padded_hw: Hw) -> int:
    """Stem, pooling, then bottlenecks: 1x1, 3x3, 1x1, and what the shortcut reads."""
    total = _at(padded_hw, 1) * 3 + _at(padded_hw, 2) * 64 * 2 + _at(padded_hw, 4) * 64
    channels_in, stride = 64, 4
    for stage, blocks in enumerate(RESNET_BLOCKS[spec.backbone]):
        width, before, stride = 64 << stage, stride, 4 << stage
        for block in range(blocks):
            pixels_in, pixels = _at(padded_hw, before if block == 0 else stride), _at(padded_hw, stride)
            total += pixels_in * (channels_in + width) + (pixels_in + pixels) * width
            total += pixels * (width + 2 * 4 * width)
            total += channels_in * width + 9 * width * width + 4 * width * width
            if block == 0:
                total += pixels * (channels_in + 4 * width) + channels_in * 4 * width
            channels_in = 4 * width
    return total


def _neck(spec: ModelSpec, padded_hw: Hw) -> int:
    total, width = 0, spec.fpn_channels
    for stride, channels in zip((4, 8, 16, 32), (256, 512, 1024, 2048), strict=True):
        pixels = _at(padded_hw, stride)
        total += pixels * (channels + 5 * width) + channels * width + 9 * width * width
    return total


def _categories(spec: ModelSpec) -> int:
    return _tower(spec, spec.num_cells * len(spec.grids), spec.fpn_channels) // len(spec.grids) + (
        spec.num_cells * (spec.head_channels + spec.num_classes) + 9 * spec.head_channels * spec.num_classes
    )


def _towers(spec: ModelSpec, padded_hw: Hw, stride: int) -> int:
    return sum(_tower(spec, _at(padded_hw, stride), spec.fpn_channels + extra) for extra in TOWER_INPUTS[spec.variant])


def _tower(spec: ModelSpec, pixels: int, channels_in: int) -> int:
    widths = [channels_in] + [spec.head_channels] * (spec.head_depth - 1)
    return sum(pixels * (c + 3 * spec.head_channels) + 9 * c * spec.head_channels for c in widths)
