"""The network as two ONNX graphs and a set of kernels, mathematically equivalent to the plain form (docs/architecture.md).

`categories`: a padded uint8 image to category scores after points-NMS, and the head's level features.
`masks`: the features of one level to its mask features; one graph for all levels, since the towers are shared.
The last mask convolution is in neither: it is applied to the selected cells only, by post-processing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from solo_models.backbone import (
    LITE0_FEATURE_STAGES,
    BasicBlock,
    Bottleneck,
    EfficientNetLite0,
    InvertedResidual,
    ResNet,
    SameConv,
)
from solo_models.bundle import Kernels
from solo_models.deformable import DeformableConv
from solo_models.network import SoloNetwork
from solo_models.spec import ModelSpec
from torch import nn

from solo_export.deformable import deformable_conv
from solo_export.graph import GraphBuilder

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Graphs:
    """A network as it is deployed; `kernels` are applied by post-processing."""

    spec: ModelSpec
    categories: onnx.ModelProto
    masks: onnx.ModelProto
    kernels: Kernels


def export_graphs(network: SoloNetwork) -> Graphs:
    """Both graphs and the kernels of a network, float32."""
    return Graphs(network.spec, categories_model(network), masks_model(network), mask_kernels(network))


def categories_model(network: SoloNetwork) -> onnx.ModelProto:
    """Inputs `images (batch, height, width, 3) uint8` and `image_hw (batch, 2) int64` (what is not padding).

    Outputs `scores (batch, cells, classes)` and `level_{i} (batch, fpn_channels, height/stride, width/stride)`.
    """
    spec, g = network.spec, GraphBuilder("categories")
    images = g.input("images", TensorProto.UINT8, ("batch", "height", "width", 3))
    image_hw = g.input("image_hw", TensorProto.INT64, ("batch", 2))
    features = backbone_features(g, network.backbone, _normalise(g, images, image_hw, spec))
    levels = _levels(g, network, features)
    scores = [category_scores(g, network, x, grid) for x, grid in zip(levels, spec.grids, strict=True)]
    merged = scores[0] if len(scores) == 1 else g.op("Concat", *scores, axis=1)
    g.output(merged, "scores", ("batch", spec.num_cells, spec.num_classes))
    for i, level in enumerate(levels):
        g.output(level, f"level_{i}", ("batch", spec.fpn_channels, f"height_{i}", f"width_{i}"))
    return g.model()


def masks_model(network: SoloNetwork) -> onnx.ModelProto:
    """Input `level (batch, fpn_channels, h, w)`; outputs `mask_features_0` (and `_1` where x and y have their own towers)."""
    spec, g = network.spec, GraphBuilder("masks")
    level = g.input("level", TensorProto.FLOAT, ("batch", spec.fpn_channels, "height", "width"))
    x, y = coordinates(g, level)
    both = [x, y] if spec.variant == "decoupled" else [g.op("Concat", x, y, axis=1)]
    for i, (tower, extra) in enumerate(zip(network.head.mask_towers, both, strict=True)):
        out = _mask_tower(g, cast(nn.Sequential, tower), level, extra, spec, f"mask_tower_{i}")
        g.output(out, f"mask_features_{i}", ("batch", spec.head_channels, "height", "width"))
    return g.model()


def mask_kernels(network: SoloNetwork) -> Kernels:
    """The last mask convolutions, with the names and shapes of `solo_models.bundle.kernel_shapes`."""
    kernels: Kernels = {}
    for level in range(len(network.spec.grids)):
        if network.spec.is_decoupled:
            for axis, convs in (("x", network.head.kernels_x), ("y", network.head.kernels_y)):
                conv = cast(nn.Conv2d, convs[level])
                kernels[f"level{level}_{axis}"] = float64(conv.weight).astype(np.float32)
                kernels[f"level{level}_{axis}_bias"] = float64(conv.bias).astype(np.float32)
        else:
            conv = cast(nn.Conv2d, network.head.kernels[level])
            kernels[f"level{level}"] = float64(conv.weight)[:, :, 0, 0].astype(np.float32)
            kernels[f"level{level}_bias"] = float64(conv.bias).astype(np.float32)
    return kernels


def fold_halving(weight: Array) -> Array:
    """A 3x3 convolution followed by bilinear x0.5 (the mean of 2x2) as one 4x4 convolution of stride 2.

    weight: `(O, C, 3, 3)`; the result `(O, C, 4, 4)` is used with padding 1. Exact for even sides.
    """
    folded = np.zeros((*weight.shape[:2], 4, 4))
    for dy in (0, 1):
        for dx in (0, 1):
            folded[:, :, dy : dy + 3, dx : dx + 3] += weight / 4
    return folded


def _normalise(g: GraphBuilder, images: str, image_hw: str, spec: ModelSpec) -> str:
    cast = g.op(
        "Cast", images, to=TensorProto.FLOAT
    )  # only the Cast reads `images`: TensorRT supports uint8 for Cast alone
    pixels = g.op("Transpose", cast, perm=[0, 3, 1, 2])
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in (spec.preprocess.mean, spec.preprocess.std))
    centred = g.op("Sub", pixels, g.constant(mean, "pixel_mean"))
    normed = g.op("Div", centred, g.constant(std, "pixel_std"))
    inside = []
    for axis, shape in ((1, [-1, 1, 1, 1]), (2, [-1, 1, 1, 1])):
        length = g.op("Squeeze", g.side(cast, axis), g.constant([0]))
        index = g.op("Range", g.constant(np.array(0)), length, g.constant(np.array(1)))
        index = g.op("Reshape", index, g.constant([1, 1, -1, 1] if axis == 1 else [1, 1, 1, -1]))
        limit = g.op("Slice", image_hw, g.constant([axis - 1]), g.constant([axis]), g.constant([1]))
        inside.append(g.op("Less", index, g.op("Reshape", limit, g.constant(shape))))
    return g.op("Where", g.op("And", *inside), normed, g.constant(np.zeros(()), "zero"))


def backbone_features(g: GraphBuilder, backbone: nn.Module, x: str) -> list[str]:
    """C2 to C5 of network input `(batch, 3, h, w) float32`."""
    if isinstance(backbone, EfficientNetLite0):
        return _lite0(g, backbone, x)
    if isinstance(backbone, ResNet):
        return _resnet(g, backbone, x)
    raise TypeError(f"no ONNX form for the backbone {type(backbone).__name__}")


def _resnet(g: GraphBuilder, backbone: ResNet, x: str) -> list[str]:
    x = g.op("Relu", _conv_bn(g, x, backbone.conv1, backbone.bn1, "backbone.conv1"))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    features = []
    for i in range(1, 5):
        for b, block in enumerate(cast(nn.Sequential, backbone.get_submodule(f"layer{i}"))):
            x = _residual(g, x, cast("BasicBlock | Bottleneck", block), f"backbone.layer{i}.{b}")
        features.append(x)
    return features


def _residual(g: GraphBuilder, x: str, block: BasicBlock | Bottleneck, name: str) -> str:
    y = g.op("Relu", _conv_bn(g, x, block.conv1, block.bn1, f"{name}.conv1"))
    y = _conv_bn(g, y, block.conv2, block.bn2, f"{name}.conv2")
    if isinstance(block, Bottleneck):
        y = _conv_bn(g, g.op("Relu", y), block.conv3, block.bn3, f"{name}.conv3")
    if block.downsample is not None:
        conv, norm = cast(nn.Conv2d, block.downsample[0]), cast(nn.BatchNorm2d, block.downsample[1])
        x = _conv_bn(g, x, conv, norm, f"{name}.downsample")
    return g.op("Relu", g.op("Add", y, x))


def _lite0(g: GraphBuilder, backbone: EfficientNetLite0, x: str) -> list[str]:
    x = _relu6(g, _conv_bn(g, x, backbone.stem, backbone.bn, "backbone.stem"))
    features = []
    for i, stage in enumerate(backbone.stages):
        for b, block in enumerate(cast(nn.Sequential, stage)):
            x = _inverted_residual(g, x, cast(InvertedResidual, block), f"backbone.stages.{i}.{b}")
        if i in LITE0_FEATURE_STAGES:
            features.append(x)
    return features


def _inverted_residual(g: GraphBuilder, x: str, block: InvertedResidual, name: str) -> str:
    y = x
    if block.expand is not None and block.bn0 is not None:
        y = _relu6(g, _conv_bn(g, y, block.expand, block.bn0, f"{name}.expand"))
    y = _relu6(g, _conv_bn(g, y, block.depthwise, block.bn1, f"{name}.depthwise"))
    y = _conv_bn(g, y, block.project, block.bn2, f"{name}.project")
    return g.op("Add", x, y) if block.has_shortcut else y


def _relu6(g: GraphBuilder, x: str) -> str:
    return g.op("Clip", x, g.constant(np.zeros(()), "zero"), g.constant(np.array(6.0), "six"))


def _conv_bn(g: GraphBuilder, x: str, conv: nn.Conv2d, norm: nn.BatchNorm2d, name: str) -> str:
    """Convolution with its BatchNorm folded in, in float64."""
    scale = float64(norm.weight) / np.sqrt(float64(norm.running_var) + norm.eps)
    bias = float64(norm.bias) - float64(norm.running_mean) * scale
    weight = float64(conv.weight) * scale[:, None, None, None]
    if isinstance(conv, DeformableConv):
        return deformable_conv(g, x, conv, weight, bias, name)
    return g.conv(x, weight, bias, name, **_geometry(conv))


def _geometry(conv: nn.Conv2d) -> dict[str, Any]:
    if isinstance(conv, SameConv):
        before, after = conv.pads()
        pads = [before, before, after, after]
    else:
        pads = [int(p) for p in conv.padding] * 2
    return {"strides": list(conv.stride), "pads": pads, "group": conv.groups}


def _levels(g: GraphBuilder, network: SoloNetwork, features: list[str]) -> list[str]:
    """The feature pyramid, resized to the head's strides."""
    spec, neck = network.spec, network.neck
    laterals = [cast(nn.Conv2d, m) for m in neck.lateral]
    merged = [
        g.conv(c, float64(m.weight), float64(m.bias), f"neck.lateral.{i}")
        for i, (m, c) in enumerate(zip(laterals, features[neck.start :], strict=False))
    ]
    for i in range(len(merged) - 1, 0, -1):
        up = g.resize(merged[i], g.side(merged[i - 1], 2), g.side(merged[i - 1], 3), "nearest")
        merged[i - 1] = g.op("Add", merged[i - 1], up)
    levels = []
    for i, source in enumerate(merged):
        conv = cast(nn.Conv2d, neck.output[i])
        halve = spec.strides[i] == 2 * spec.fpn_strides[i]
        weight = fold_halving(float64(conv.weight)) if halve else float64(conv.weight)
        stride = 2 if halve else 1
        levels.append(
            g.conv(source, weight, float64(conv.bias), f"neck.output.{i}", strides=[stride] * 2, pads=[1] * 4)
        )
    return _resized_levels(g, spec, levels)


def _resized_levels(g: GraphBuilder, spec: ModelSpec, levels: list[str]) -> list[str]:
    """Add the level beyond C5 if the specification has one, and double the levels that the head reads at half the stride."""
    sides = {spec.fpn_strides[i]: (g.side(x, 2), g.side(x, 3)) for i, x in enumerate(levels)}
    if len(levels) < len(spec.grids):
        start, end, axes, steps = ([0, 0], [2**31, 2**31], [2, 3], [2, 2])
        levels = [*levels, g.op("Slice", levels[-1], *(g.constant(v) for v in (start, end, axes, steps)))]
    doubled = [2 * stride == fpn for stride, fpn in zip(spec.strides, spec.fpn_strides, strict=True)]
    return [
        g.resize(x, *sides[stride]) if twice else x
        for x, stride, twice in zip(levels, spec.strides, doubled, strict=True)
    ]


def category_scores(g: GraphBuilder, network: SoloNetwork, feature: str, grid: int) -> str:
    """Category branch of one level, sigmoid, points-NMS: `(batch, S*S, C)`."""
    head, spec = network.head, network.spec
    side = g.constant([grid])
    x = g.resize(feature, side, side)
    for n, block in enumerate(head.category_tower):
        x = conv_norm_relu(g, x, block, spec, f"category_tower.{n}")
    logits = g.conv(x, float64(head.categories.weight), float64(head.categories.bias), "categories", pads=[1] * 4)
    scores = g.op("Sigmoid", logits)
    best = g.op("MaxPool", scores, kernel_shape=[2, 2], strides=[1, 1], pads=[1, 1, 0, 0])
    kept = g.op("Where", g.op("Equal", best, scores), scores, g.constant(np.zeros(()), "zero"))
    flat = g.op("Reshape", kept, g.constant([0, spec.num_classes, grid * grid]))
    return g.op("Transpose", flat, perm=[0, 2, 1])


def conv_norm_relu(g: GraphBuilder, x: str, block: Any, spec: ModelSpec, name: str) -> str:
    """One step of a tower."""
    if isinstance(block.conv, DeformableConv):
        y = deformable_conv(g, x, block.conv, float64(block.conv.weight), None, f"{name}.conv")
    else:
        y = g.conv(x, float64(block.conv.weight), None, f"{name}.conv", pads=[1] * 4)
    norm = block.norm
    return g.op(
        "Relu", g.group_norm(y, float64(norm.weight), float64(norm.bias), spec.norm_groups, norm.eps, f"{name}.norm")
    )


def _mask_tower(g: GraphBuilder, tower: nn.Sequential, level: str, extra: str, spec: ModelSpec, name: str) -> str:
    """The first convolution is split into feature channels and coordinate channels, which depend on the shape only."""
    first: Any = tower[0]
    weight = float64(first.conv.weight)
    own = g.conv(level, weight[:, : spec.fpn_channels], None, f"{name}.0.features", pads=[1] * 4)
    place = g.conv(extra, weight[:, spec.fpn_channels :], None, f"{name}.0.coordinates", pads=[1] * 4)
    norm = first.norm
    x = g.op("Add", own, place)
    x = g.op(
        "Relu", g.group_norm(x, float64(norm.weight), float64(norm.bias), spec.norm_groups, norm.eps, f"{name}.0.norm")
    )
    for n in range(1, len(tower)):
        x = conv_norm_relu(g, x, tower[n], spec, f"{name}.{n}")
    return x


def coordinates(g: GraphBuilder, level: str) -> tuple[str, str]:
    """CoordConv maps x and y, `(1, 1, h, w)` each: from -1 to 1 inclusive, over the padded map."""
    height, width = g.side(level, 2), g.side(level, 3)
    shape = g.op("Concat", g.constant([1, 1]), height, width, axis=0)
    maps = []
    for length, target in ((width, [1, 1, 1, -1]), (height, [1, 1, -1, 1])):
        count = g.op("Squeeze", length, g.constant([0]))
        index = g.op("Range", g.constant(np.array(0)), count, g.constant(np.array(1)))
        steps = g.op(
            "Max", g.op("Cast", g.op("Sub", length, g.constant([1])), to=TensorProto.FLOAT), g.constant(np.ones(1))
        )
        part = g.op("Div", g.op("Cast", index, to=TensorProto.FLOAT), steps)
        line = g.op("Sub", g.op("Add", part, part), g.constant(np.ones(1)))
        maps.append(g.op("Expand", g.op("Reshape", line, g.constant(target)), shape))
    return maps[0], maps[1]


def float64(tensor: Any) -> Array:
    """A weight as float64, for arithmetic at export time."""
    return cast(Array, tensor.detach().double().numpy())
