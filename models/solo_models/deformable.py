"""Deformable 3x3 convolution, first version (DCNv1, arXiv 1703.06211): each tap reads at a learned offset.

The plain form in PyTorch. One deformable group, as in the published SOLO networks (stages of the backbone, last tower convolution).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo_models.spec import DEFORMABLE_OFFSETS

TAPS = 9


class DeformableConv(nn.Conv2d):
    """3x3 convolution without bias, padding 1; `conv_offset` predicts `(dy, dx)` in pixels for each tap and output pixel."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__(channels_in, channels, 3, stride, 1, bias=False)
        self.conv_offset = nn.Conv2d(channels_in, DEFORMABLE_OFFSETS, 3, stride, 1)
        for parameter in self.conv_offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, Cin, h, w)` -> `(N, C, h/stride, w/stride)`; positions outside the map read zero."""
        offsets = self.conv_offset(x)
        n, _, height, width = offsets.shape
        dy, dx = offsets.reshape(n, TAPS, 2, height * width).unbind(2)
        rows, columns = sampling_positions(height, width, self.stride[0], x)
        grid = torch.stack([(2 * (columns + dx) + 1) / x.shape[3] - 1, (2 * (rows + dy) + 1) / x.shape[2] - 1], -1)
        taps = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return F.conv2d(taps.reshape(n, x.shape[1] * TAPS, height, width), self.weight.flatten(1)[:, :, None, None])


def sampling_positions(height: int, width: int, stride: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each tap of each output pixel without offsets, `(9, height*width)` each, in input pixels."""
    tap = torch.arange(TAPS, device=like.device)
    row = torch.arange(height, device=like.device) * stride - 1
    column = torch.arange(width, device=like.device) * stride - 1
    rows = (tap // 3)[:, None, None] + row[None, :, None].expand(1, height, width)
    columns = (tap % 3)[:, None, None] + column[None, None, :].expand(1, height, width)
    return rows.flatten(1).to(like.dtype), columns.flatten(1).to(like.dtype)
