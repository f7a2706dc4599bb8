"""The SOLO heads: category scores for every grid cell, and a soft mask for every grid cell (section 3.1, figure 3).

The plain form, which builds the masks of all cells. Training uses it, and the exported form is checked against it; the
server never runs it. Semantics: mmdet `models/dense_heads/solo_head.py`, decoupled: section 5 of the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo_models.deformable import DeformableConv
from solo_models.spec import TOWER_COORDINATES, ModelSpec


class ConvNormRelu(nn.Module):
    """3x3 convolution without bias (deformable on request), GroupNorm, ReLU."""

    def __init__(self, channels_in: int, channels: int, groups: int, deformable: bool = False) -> None:
        super().__init__()
        self.conv = (
            DeformableConv(channels_in, channels)
            if deformable
            else nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        )
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, Cin, h, w)` -> `(N, C, h, w)`."""
        return F.relu(self.norm(self.conv(x)))


class SoloHead(nn.Module):
    """Towers shared by all levels; each level has its own last mask convolutions (`kernels*`)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        coordinates = TOWER_COORDINATES[spec.variant]
        self.mask_towers = nn.ModuleList(_tower(spec, spec.fpn_channels + n) for n in coordinates)
        self.category_tower = _tower(spec, spec.fpn_channels)
        self.categories = nn.Conv2d(spec.head_channels, spec.num_classes, 3, padding=1)
        if spec.is_decoupled:
            self.kernels_x = nn.ModuleList(nn.Conv2d(spec.head_channels, s, 3, padding=1) for s in spec.grids)
            self.kernels_y = nn.ModuleList(nn.Conv2d(spec.head_channels, s, 3, padding=1) for s in spec.grids)
        else:
            self.kernels = nn.ModuleList(nn.Conv2d(spec.head_channels, s * s, 1) for s in spec.grids)

    def level_features(self, pyramid: list[Tensor]) -> list[Tensor]:
        """FPN levels resized from `fpn_strides` to `strides`."""
        sizes = {stride: p.shape[-2:] for stride, p in zip(self.spec.fpn_strides, pyramid, strict=True)}
        return [
            p if fpn == stride else _bilinear(p, sizes[stride])
            for p, fpn, stride in zip(pyramid, self.spec.fpn_strides, self.spec.strides, strict=True)
        ]

    def category_logits(self, features: list[Tensor]) -> list[Tensor]:
        """One `(N, C, S, S)` per level, before the sigmoid."""
        logits = []
        for feature, grid in zip(features, self.spec.grids, strict=True):
            logits.append(self.categories(self.category_tower(_bilinear(feature, (grid, grid)))))
        return logits

    def mask_features(self, feature: Tensor) -> list[Tensor]:
        """One level through the mask towers: `[(N, head_channels, h, w)]`, two of them (x, y) for `decoupled`."""
        xy = coordinates(feature)
        if self.spec.variant == "decoupled":
            return [
                tower(torch.cat([feature, c], 1))
                for tower, c in zip(self.mask_towers, (xy[:, :1], xy[:, 1:]), strict=True)
            ]
        return [self.mask_towers[0](torch.cat([feature, xy], 1))]

    def mask_logits(self, level: int, features: list[Tensor]) -> list[Tensor]:
        """Last mask convolution on features upsampled x2: `[(N, S*S, 2h, 2w)]`, or `[x, y]` of `(N, S, 2h, 2w)`."""
        up = [F.interpolate(f, scale_factor=2, mode="bilinear") for f in features]
        if not self.spec.is_decoupled:
            return [self.kernels[level](up[0])]
        return [self.kernels_x[level](up[0]), self.kernels_y[level](up[-1])]

    def scores(self, features: list[Tensor]) -> Tensor:
        """Category scores after points-NMS, `(N, cells, C)`, cells of a level row by row, levels in order."""
        maps = [points_nms(logits.sigmoid()) for logits in self.category_logits(features)]
        return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)

    def soft_masks(self, features: list[Tensor]) -> list[list[Tensor]]:
        """Soft masks at the mask stride: a level's `[(N, S*S, H, W)]`, or `[x, y]` of `(N, S, H, W)`; 0..1."""
        size = (features[0].shape[-2] * 2, features[0].shape[-1] * 2)
        levels = []
        for level, feature in enumerate(features):
            logits = self.mask_logits(level, self.mask_features(feature))
            levels.append([_bilinear(part.sigmoid(), size) for part in logits])
        return levels


def coordinates(feature: Tensor) -> Tensor:
    """CoordConv channels x, y of a map: `(N, 2, h, w)`, from -1 to 1 inclusive."""
    n, _, h, w = feature.shape
    y = torch.linspace(-1, 1, h, device=feature.device, dtype=feature.dtype)
    x = torch.linspace(-1, 1, w, device=feature.device, dtype=feature.dtype)
    return torch.stack([x.expand(h, w), y[:, None].expand(h, w)]).expand(n, 2, h, w)


def points_nms(scores: Tensor) -> Tensor:
    """Set each score to zero that the neighbour above, left or above left exceeds; `(N, C, S, S)`. Ties survive."""
    best = F.max_pool2d(F.pad(scores, (1, 0, 1, 0), value=-torch.inf), 2, stride=1)
    return torch.where(best == scores, scores, torch.zeros_like(scores))


def _tower(spec: ModelSpec, channels_in: int) -> nn.Sequential:
    widths = [channels_in] + [spec.head_channels] * (spec.head_depth - 1)
    deformable = [False] * (spec.head_depth - 1) + [spec.deformable_towers]
    return nn.Sequential(
        *(ConvNormRelu(c, spec.head_channels, spec.norm_groups, d) for c, d in zip(widths, deformable, strict=True))
    )


def _bilinear(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
