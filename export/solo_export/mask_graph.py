"""The soft masks of one level's selected cells as graph nodes; `solo_server.backends.cpu.masks` computes the same with numpy.

In the single-file model this comes between the two network graphs and `postprocess_graph`. A mask is computed at its level's own
resolution and then enlarged, only for the selected cells: the last 1x1 mask convolution commutes with bilinear doubling, and
a 3x3 one of the doubled map is the sum of its nine taps' products, each doubled and shifted. All tensors are float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from solo_models.bundle import Kernels
from solo_models.spec import ModelSpec

from solo_export.graph import GraphBuilder


def soft_masks(
    g: GraphBuilder, spec: ModelSpec, kernels: Kernels, level: int, within: str, features: Sequence[str], mask_hw: str
) -> str:
    """`(n, H, W)`, 0..1, at the mask stride, of the cells `within` `(n,) int64` of one level, n >= 1.

    features: outputs of the mask towers, `(1, channels, h, w)`, one or two; mask_hw: `(2,) int64`, H and W.
    """
    if not spec.is_decoupled:
        return _direct(g, kernels, level, within, features[0], mask_hw)
    grid = g.constant(np.array(spec.grids[level]))
    x = _axis_masks(g, kernels, f"level{level}_x", g.op("Mod", within, grid), features[0], mask_hw)
    y = _axis_masks(g, kernels, f"level{level}_y", g.op("Div", within, grid), features[-1], mask_hw)
    return g.op("Mul", x, y)


def measure(g: GraphBuilder, soft: str, threshold: float) -> tuple[str, str]:
    """Area in pixels and maskness, the mean value inside, `(n,)` each, of soft masks `(n, H, W)` binarised at `threshold`."""
    inside, axes = g.op("Greater", soft, g.constant(threshold)), g.constant([1, 2])
    areas = g.op("ReduceSum", g.op("Cast", inside, to=1), axes, keepdims=0)
    total = g.op("ReduceSum", g.op("Where", inside, soft, g.constant(0.0)), axes, keepdims=0)
    return areas, g.op("Div", total, g.op("Max", areas, g.constant(1.0)))


def resize_to(g: GraphBuilder, maps: str, hw: str) -> str:
    """Bilinear, half-pixel centres, no antialias: `(a, b, h, w)` to the size `hw` `(2,) int64`."""
    sizes = g.op("Concat", g.op("Shape", maps, start=0, end=2), hw, axis=0)
    return g.op("Resize", maps, "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")


def _direct(g: GraphBuilder, kernels: Kernels, level: int, within: str, feature: str, mask_hw: str) -> str:
    """SOLO: each cell has its own kernel."""
    weight, bias = (g.constant(kernels[name], f"kernels.{name}") for name in (f"level{level}", f"level{level}_bias"))
    flat = g.op("Reshape", feature, g.constant([0, 0, -1]))
    logits = g.op("MatMul", g.op("Gather", weight, within), flat)
    logits = g.op("Add", logits, g.op("Unsqueeze", g.op("Gather", bias, within), g.constant([1])))
    hw = g.op("Shape", feature, start=2)
    maps = g.op("Reshape", logits, g.op("Concat", g.constant([1, -1]), hw, axis=0))
    return g.op("Squeeze", _enlarge(g, _double(g, maps, hw), mask_hw), g.constant([0]))


def _axis_masks(g: GraphBuilder, kernels: Kernels, name: str, positions: str, feature: str, mask_hw: str) -> str:
    """Decoupled: the map of one axis for each of `positions` `(n,)`; equal positions are computed once."""
    places, _, back = g.ops("Unique", 3, positions, sorted=1)
    taps = _taps(g, kernels, name, places, feature)
    hw = g.op("Shape", feature, start=2)
    maps = g.op("Reshape", taps, g.op("Concat", g.constant([-1, 9]), hw, axis=0))
    bias = g.op("Gather", g.constant(kernels[f"{name}_bias"], f"kernels.{name}_bias"), places)
    # Shift each tap's map by the tap's offset, with zeros at the border, and add all nine.
    shifts = g.constant(np.eye(9).reshape(1, 9, 3, 3), "tap_shifts")
    logits = g.op("Conv", _double(g, maps, hw), shifts, kernel_shape=[3, 3], pads=[1] * 4)
    logits = g.op("Add", logits, g.op("Unsqueeze", bias, g.constant([1, 2, 3])))
    soft = g.op("Squeeze", _enlarge(g, logits, mask_hw), g.constant([1]))
    return g.op("Gather", soft, back)


def _taps(g: GraphBuilder, kernels: Kernels, name: str, places: str, feature: str) -> str:
    """Products of each tap of the selected 3x3 kernels with the features: `(1, n * 9, h * w)`, a kernel's taps row by row."""
    weight = kernels[name].transpose(0, 2, 3, 1).reshape(len(kernels[name]), 9, -1)
    chosen = g.op("Gather", g.constant(weight, f"kernels.{name}"), places)
    rows = g.op("Reshape", chosen, g.constant([-1, weight.shape[2]]))
    return g.op("MatMul", rows, g.op("Reshape", feature, g.constant([0, 0, -1])))


def _double(g: GraphBuilder, maps: str, hw: str) -> str:
    return resize_to(g, maps, g.op("Mul", hw, g.constant([2])))


def _enlarge(g: GraphBuilder, logits: str, mask_hw: str) -> str:
    """In the reference's order: sigmoid, then bilinear to the mask stride."""
    return resize_to(g, g.op("Sigmoid", logits), mask_hw)
