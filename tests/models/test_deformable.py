"""Deformable convolution is what its definition says, tap by tap."""

import numpy as np
import pytest
import torch
from solo_models.deformable import DeformableConv
from torch.nn import functional as F


def _value(plane: np.ndarray, y: float, x: float) -> float:
    """Bilinear between the four pixels around `(y, x)`; pixels outside are zero."""
    total = 0.0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row, column]
    return total


def _by_definition(x: np.ndarray, offsets: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    channels, (height, width) = len(weight), offsets.shape[1:]
    out = np.zeros((channels, height, width))
    for row, column, tap in np.ndindex(height, width, 9):
        y = row * stride - 1 + tap // 3 + offsets[2 * tap, row, column]
        x_ = column * stride - 1 + tap % 3 + offsets[2 * tap + 1, row, column]
        for c, plane in enumerate(x):
            out[:, row, column] += weight[:, c, tap // 3, tap % 3] * _value(plane, y, x_)
    return out


@pytest.mark.parametrize(("stride", "height", "width"), [(1, 5, 7), (2, 6, 8), (1, 1, 4), (1, 3, 1)])
@torch.no_grad()
def test_every_tap_reads_where_its_offset_points(stride: int, height: int, width: int) -> None:
    torch.manual_seed(height)
    conv = DeformableConv(2, 3, stride)
    conv.conv_offset.weight.normal_(0, 0.3)
    conv.conv_offset.bias.normal_(0, 1.5)  # type: ignore[union-attr]  # there is one
    x = torch.randn(1, 2, height, width)
    expected = _by_definition(x[0].numpy(), conv.conv_offset(x)[0].numpy(), conv.weight.numpy(), stride)
    np.testing.assert_allclose(conv(x)[0].numpy(), expected, atol=2e-5)


@torch.no_grad()
def test_without_offsets_it_is_a_plain_convolution() -> None:
    conv, x = DeformableConv(4, 5, 2), torch.randn(2, 4, 8, 10)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, stride=2, padding=1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_offsets_far_outside_read_zero() -> None:
    conv, x = DeformableConv(1, 1), torch.ones(1, 1, 4, 4)
    conv.conv_offset.bias.fill_(100.0)  # type: ignore[union-attr]  # there is one
    assert conv(x).abs().max() == 0
