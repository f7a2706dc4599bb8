"""Deformable convolution (DCNv1) in standard operators: one GridSample reads all nine taps, a 1x1 convolution sums them.

ONNX's `DeformConv` needs opset 19, and TensorRT 10.4 does not have it; GridSample works in both. Plain form:
`solo_models.deformable`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from solo_models.deformable import TAPS, DeformableConv

from solo_export.graph import GraphBuilder

Array = NDArray[np.float64]


def deformable_conv(g: GraphBuilder, x: str, conv: DeformableConv, weight: Array, bias: Array | None, name: str) -> str:
    """The output of `conv` on `x`, with its BatchNorm already folded into `weight (O, C, 3, 3)` and `bias (O,)`."""
    stride = conv.stride[0]
    swapped = np.arange(2 * TAPS).reshape(TAPS, 2)[:, ::-1].reshape(-1)  # (dy, dx) of each tap to the grid's (x, y)
    offset_weight, offset_bias = (p.detach().double().numpy()[swapped] for p in conv.conv_offset.parameters())
    offsets = g.conv(x, offset_weight, offset_bias, f"{name}.offset", strides=[stride] * 2, pads=[1] * 4)
    height, width = g.side(offsets, 2), g.side(offsets, 3)
    offsets = g.op("Reshape", offsets, g.constant([0, TAPS, 2, -1]))
    offsets = g.op("Transpose", offsets, perm=[0, 1, 3, 2])
    position = g.op("Add", offsets, _tap_positions(g, height, width, stride))
    size_xy = g.op("Cast", g.op("Concat", g.side(x, 3), g.side(x, 2), axis=0), to=TensorProto.FLOAT)
    half = g.op("Div", size_xy, g.constant(np.array([2.0])))
    centre = g.op("Add", position, g.constant(np.array(0.5), "half"))
    grid = g.op("Sub", g.op("Div", centre, half), g.constant(np.ones(1)))
    taps = g.op("GridSample", x, grid, mode="bilinear", padding_mode="zeros", align_corners=0)
    channels = g.op("Concat", g.constant([0, TAPS * weight.shape[1]]), height, width, axis=0)
    taps = g.op("Reshape", taps, channels)
    return g.conv(taps, weight.reshape(len(weight), -1, 1, 1), bias, name)


def _tap_positions(g: GraphBuilder, height: str, width: str, stride: int) -> str:
    """Position of each tap of each output pixel without offsets: `(1, 9, h*w, 2)`, x before y, in input pixels."""
    shape = g.op("Concat", g.constant([1, TAPS]), height, width, axis=0)
    maps = []
    for axis, length, target, tap in (
        ("x", width, [1, 1, 1, -1], np.arange(TAPS) % 3),
        ("y", height, [1, 1, -1, 1], np.arange(TAPS) // 3),
    ):
        count = g.op("Squeeze", length, g.constant([0]))
        index = g.op("Range", g.constant(np.array(0)), count, g.constant(np.array(1)))
        start = g.op("Mul", g.op("Cast", index, to=TensorProto.FLOAT), g.constant(np.array([float(stride)])))
        first = g.constant((tap - 1.0).reshape(1, TAPS, 1, 1), f"taps_{axis}")
        place = g.op("Expand", g.op("Add", g.op("Reshape", start, g.constant(target)), first), shape)
        maps.append(g.op("Reshape", place, g.constant([1, TAPS, -1, 1])))
    return g.op("Concat", *maps, axis=3)
