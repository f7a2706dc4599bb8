"""How much arithmetic a network takes: multiply-adds of its convolutions, by part, for a padded image size.

Two forms: `reference` is the full head as in mmdet, `needed` is what the server computes of it (`docs/architecture.md`). One
multiply-add counts as two operations. Normalisation, activation, resizing and the sampling of deformable convolutions do not count.
Standard library only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from solo_models.spec import (
    BACKBONE_STRIDES,
    DEFORMABLE_OFFSETS,
    LITE0_STAGES,
    RESNET_BLOCKS,
    TOWER_COORDINATES,
    ModelSpec,
    backbone_channels,
)

Hw = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """GFLOP of one image. towers: one value per level, 0 where they do not run; last: the last mask convolution of all levels."""

    backbone: float
    neck: float
    categories: float
    towers: tuple[float, ...]
    last: float

    @property
    def total(self) -> float:
        """All parts together."""
        return self.backbone + self.neck + self.categories + sum(self.towers) + self.last


def reference(spec: ModelSpec, padded_hw: Hw) -> Arithmetic:
    """The full head: mask towers of all levels, the last mask convolution of all cells on features doubled in size."""
    kernels = [2 * grid if spec.is_decoupled else grid * grid for grid in spec.grids]
    last = sum(4 * count * _last_kernel(spec, level, padded_hw) for level, count in enumerate(kernels))
    return Arithmetic(
        _gflop(_backbone(spec, padded_hw)),
        _gflop(_neck(spec, padded_hw, folded=False)),
        _gflop(_categories(spec)),
        tuple(_gflop(_towers(spec, _level_hw(spec, level, padded_hw))) for level in range(len(spec.grids))),
        _gflop(last),
    )


def needed(
    spec: ModelSpec, padded_hw: Hw, levels: Collection[int] | None = None, kernels: Mapping[int, int] | None = None
) -> Arithmetic:
    """The halving of the finest level is folded into its convolution; mask towers and kernels run only for levels with candidates.

    levels: those whose mask towers run (default: all). kernels: how many last mask kernels a level applies, at its own
    resolution: one per selected cell, or per selected row and column of a decoupled head (default: none).
    """
    run = set(range(len(spec.grids)) if levels is None else levels)
    towers = [_towers(spec, _level_hw(spec, i, padded_hw)) if i in run else 0 for i in range(len(spec.grids))]
    last = sum(count * _last_kernel(spec, level, padded_hw) for level, count in (kernels or {}).items())
    return Arithmetic(
        _gflop(_backbone(spec, padded_hw)),
        _gflop(_neck(spec, padded_hw, folded=True)),
        _gflop(_categories(spec)),
        tuple(_gflop(count) for count in towers),
        _gflop(last),
    )


def _gflop(multiply_adds: int) -> float:
    return 2 * multiply_adds / 1e9


def _at(padded_hw: Hw, stride: int) -> int:
    """The number of pixels of a map."""
    return (padded_hw[0] // stride) * (padded_hw[1] // stride)


def _level_hw(spec: ModelSpec, level: int, padded_hw: Hw) -> int:
    return _at(padded_hw, spec.strides[level])


def _backbone(spec: ModelSpec, padded_hw: Hw) -> int:
    return _lite0(padded_hw) if spec.backbone == "efficientnet_lite0" else _resnet(spec, padded_hw)


def _resnet(spec: ModelSpec, padded_hw: Hw) -> int:
    bottleneck = spec.backbone in ("resnet50", "resnet101")
    total, channels_in, stride = _at(padded_hw, 2) * 64 * 3 * 49, 64, 4
    for stage, blocks in enumerate(RESNET_BLOCKS[spec.backbone]):
        width, before = 64 << stage, stride
        stride = 4 << stage
        out = width * 4 if bottleneck else width
        deformable = stage + 1 in spec.deformable_stages
        for block in range(blocks):
            pixels_in, pixels = _at(padded_hw, before if block == 0 else stride), _at(padded_hw, stride)
            if bottleneck:
                total += pixels_in * channels_in * width + pixels * (_three(width, width, deformable) + width * out)
            else:
                total += pixels * (_three(channels_in, width, False) + _three(width, width, False))
            if channels_in != out or pixels_in != pixels:
                total += pixels * channels_in * out
            channels_in = out
    return total


def _lite0(padded_hw: Hw) -> int:
    total, channels_in, stride = _at(padded_hw, 2) * 32 * 3 * 9, 32, 2
    for blocks, kernel, stage_stride, expansion, channels in LITE0_STAGES:
        for block in range(blocks):
            middle, before = channels_in * expansion, stride
            stride *= stage_stride if block == 0 else 1
            expand = _at(padded_hw, before) * channels_in * middle if expansion > 1 else 0
            total += expand + _at(padded_hw, stride) * (middle * kernel * kernel + middle * channels)
            channels_in = channels
    return total


def _neck(spec: ModelSpec, padded_hw: Hw, *, folded: bool) -> int:
    """Lateral 1x1 and output 3x3 convolutions; a level beyond C5 is subsampled, without arithmetic."""
    total, width = 0, spec.fpn_channels
    for level, channels in enumerate(_lateral_channels(spec)):
        halved = folded and spec.strides[level] == 2 * spec.fpn_strides[level]
        pixels = _at(padded_hw, spec.fpn_strides[level])
        total += pixels * channels * width
        total += (_level_hw(spec, level, padded_hw) * 16 if halved else pixels * 9) * width * width
    return total


def _lateral_channels(spec: ModelSpec) -> tuple[int, ...]:
    """Channels of the backbone features that the pyramid reads."""
    start = BACKBONE_STRIDES.index(spec.fpn_strides[0])
    return backbone_channels(spec.backbone)[start : start + len(spec.fpn_strides)]


def _categories(spec: ModelSpec) -> int:
    cells = spec.num_cells
    return cells * (_tower(spec, spec.fpn_channels) + _three(spec.head_channels, spec.num_classes, False))


def _towers(spec: ModelSpec, pixels: int) -> int:
    return pixels * sum(_tower(spec, spec.fpn_channels + extra) for extra in TOWER_COORDINATES[spec.variant])


def _tower(spec: ModelSpec, channels_in: int) -> int:
    """Multiply-adds of a tower for one pixel."""
    widths = [channels_in] + [spec.head_channels] * (spec.head_depth - 1)
    last = spec.head_depth - 1
    return sum(_three(c, spec.head_channels, spec.deformable_towers and i == last) for i, c in enumerate(widths))


def _last_kernel(spec: ModelSpec, level: int, padded_hw: Hw) -> int:
    """One last mask kernel at a level's own resolution: 1x1, or 3x3 of the decoupled heads."""
    return _level_hw(spec, level, padded_hw) * spec.head_channels * (9 if spec.is_decoupled else 1)


def _three(channels_in: int, channels: int, deformable: bool) -> int:
    """A 3x3 convolution for one output pixel; a deformable one has a second that predicts its offsets."""
    return 9 * channels_in * (channels + (DEFORMABLE_OFFSETS if deformable else 0))
