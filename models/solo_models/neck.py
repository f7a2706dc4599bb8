"""Feature pyramid (FPN): backbone features to levels of one width, section 3.2 of the paper.

Convolutions with bias, without norm or activation; nearest x2 top-down; the level beyond C5 is P5 subsampled by two, as in
mmdet `models/necks/fpn.py` with `start_level=0` and `num_outs=5`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from solo_models.spec import BACKBONE_STRIDES, ModelSpec, backbone_channels


class FeaturePyramid(nn.Module):
    """`[C2..C5]` -> one `(N, fpn_channels, h/stride, w/stride)` for each of `spec.fpn_strides`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.start = BACKBONE_STRIDES.index(spec.fpn_strides[0])
        self.levels = len(spec.fpn_strides)
        channels_in = backbone_channels(spec.backbone)[self.start : self.start + self.levels]
        self.lateral = nn.ModuleList(nn.Conv2d(c, spec.fpn_channels, 1) for c in channels_in)
        self.output = nn.ModuleList(nn.Conv2d(spec.fpn_channels, spec.fpn_channels, 3, padding=1) for _ in channels_in)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """`[C2..C5]` to the levels; sides must be multiples of the coarsest stride."""
        merged = [lateral(c) for lateral, c in zip(self.lateral, features[self.start :], strict=False)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], size=merged[i - 1].shape[-2:], mode="nearest")
        levels = [output(m) for output, m in zip(self.output, merged, strict=True)]
        if len(levels) < self.levels:
            levels.append(levels[-1][:, :, ::2, ::2])
        return levels
