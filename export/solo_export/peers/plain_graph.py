"""The network as one ONNX graph, as a straightforward exporter writes it: all masks of all cells, without our rewriting.

    python -m solo_export.peers.plain_graph CHECKPOINT SPEC.json TARGET.onnx

It runs in a separate process, so that torch and the weights do not count as memory of the peer that runs the graph.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import onnx
from onnx import TensorProto
from solo_models.checkpoint import CheckpointError, read_checkpoint
from solo_models.network import SoloNetwork
from solo_models.spec import ModelSpec
from torch import nn

from solo_export.graph import GraphBuilder
from solo_export.onnx import backbone_features, category_scores, conv_norm_relu, coordinates, float64


def plain_model(network: SoloNetwork) -> onnx.ModelProto:
    """Input `pixels (batch, 3, height, width) float32`, normalised. Outputs `scores (batch, cells, classes)` after points-NMS
    and soft masks at the mask stride: `masks (batch, cells, H, W)`, or `masks_x`, `masks_y` `(batch, sum of grids, H, W)`.
    """
    spec, g = network.spec, GraphBuilder("plain")
    pixels = g.input("pixels", TensorProto.FLOAT, ("batch", 3, "height", "width"))
    levels = _levels(g, network, backbone_features(g, network.backbone, pixels))
    scores = [category_scores(g, network, x, grid) for x, grid in zip(levels, spec.grids, strict=True)]
    g.output(_join(g, scores), "scores", ("batch", spec.num_cells, spec.num_classes))
    mask_hw = [g.op("Mul", g.side(levels[0], axis), g.constant([2])) for axis in (2, 3)]
    masks = [_masks(g, network, level, x, mask_hw) for level, x in enumerate(levels)]
    names = ("masks_x", "masks_y") if spec.is_decoupled else ("masks",)
    for name, parts in zip(names, zip(*masks, strict=True), strict=True):
        count = sum(spec.grids) if spec.is_decoupled else spec.num_cells
        g.output(_join(g, list(parts)), name, ("batch", count, "mask_height", "mask_width"))
    return g.model()


def _levels(g: GraphBuilder, network: SoloNetwork, features: list[str]) -> list[str]:
    """Feature pyramid, then each level resized to its stride as a step of its own."""
    spec, neck = network.spec, network.neck
    merged = [
        g.conv(c, float64(m.weight), float64(m.bias), f"neck.lateral.{i}")
        for i, (m, c) in enumerate(zip(_convs(neck.lateral), features[neck.start :], strict=False))
    ]
    for i in range(len(merged) - 1, 0, -1):
        up = g.resize(merged[i], g.side(merged[i - 1], 2), g.side(merged[i - 1], 3), "nearest")
        merged[i - 1] = g.op("Add", merged[i - 1], up)
    pyramid = [
        g.conv(x, float64(m.weight), float64(m.bias), f"neck.output.{i}", pads=[1] * 4)
        for i, (m, x) in enumerate(zip(_convs(neck.output), merged, strict=True))
    ]
    if len(pyramid) < len(spec.grids):
        start, end, axes, steps = ([0, 0], [2**31, 2**31], [2, 3], [2, 2])
        pyramid.append(g.op("Slice", pyramid[-1], *(g.constant(v) for v in (start, end, axes, steps))))
    sides = {stride: (g.side(x, 2), g.side(x, 3)) for stride, x in zip(spec.fpn_strides, pyramid, strict=True)}
    return [
        x if fpn == stride else g.resize(x, *sides[stride])
        for x, fpn, stride in zip(pyramid, spec.fpn_strides, spec.strides, strict=True)
    ]


def _masks(g: GraphBuilder, network: SoloNetwork, level: int, feature: str, mask_hw: list[str]) -> list[str]:
    """Soft masks of all cells of a level, `[masks]` or `[x, y]`: tower, doubling, last convolution, sigmoid, upsampling."""
    head, spec = network.head, network.spec
    x, y = (_of_batch(g, axis, feature) for axis in coordinates(g, feature))
    inputs = [[x], [y]] if spec.variant == "decoupled" else [[x, y]]
    towers = [_tower(g, network, i, g.op("Concat", feature, *extra, axis=1), level) for i, extra in enumerate(inputs)]
    doubled = [_doubled(g, tower) for tower in towers]
    banks = [head.kernels_x, head.kernels_y] if spec.is_decoupled else [head.kernels]
    soft = []
    for i, bank in enumerate(banks):
        conv, source = _convs(bank)[level], doubled[min(i, len(doubled) - 1)]
        pads = [int(p) for p in cast(tuple[int, int], conv.padding)] * 2
        logits = g.conv(source, float64(conv.weight), float64(conv.bias), f"kernels_{i}.{level}", pads=pads)
        soft.append(g.resize(g.op("Sigmoid", logits), *mask_hw))
    return soft


def _tower(g: GraphBuilder, network: SoloNetwork, number: int, x: str, level: int) -> str:
    """One mask tower; equal names make all levels share its weights."""
    for n, block in enumerate(cast(nn.Sequential, network.head.mask_towers[number])):
        x = conv_norm_relu(g, x, block, network.spec, f"mask_tower_{number}.{n}")
    return x


def _of_batch(g: GraphBuilder, coordinate: str, feature: str) -> str:
    """A coordinate map `(1, 1, h, w)` once for each image of the batch."""
    return g.op("Expand", coordinate, g.op("Concat", g.side(feature, 0), g.constant([1, 1, 1]), axis=0))


def _doubled(g: GraphBuilder, x: str) -> str:
    return g.resize(x, *(g.op("Mul", g.side(x, axis), g.constant([2])) for axis in (2, 3)))


def _join(g: GraphBuilder, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else g.op("Concat", *parts, axis=1)


def _convs(modules: nn.Module) -> list[nn.Conv2d]:
    return [cast(nn.Conv2d, module) for module in cast(nn.ModuleList, modules)]


def network_of(checkpoint: Path, spec: ModelSpec) -> SoloNetwork:
    """The checkpoint's network, which must be the one that `spec` describes; names, sizes and thresholds are those of `spec`.

    Raises:
        CheckpointError: not readable, or another network.
    """
    network = read_checkpoint(checkpoint).network
    found = network.spec
    for name in ("variant", "backbone", "grids", "num_classes", "fpn_channels", "head_channels", "head_depth"):
        if getattr(found, name) != getattr(spec, name):
            raise CheckpointError(
                f"does not fit the bundle: {name} is {getattr(found, name)}, not {getattr(spec, name)}"
            )
    network.spec = network.head.spec = replace(
        found, norm_groups=spec.norm_groups, preprocess=spec.preprocess, postprocess=spec.postprocess
    )
    return network


def main() -> int:
    """Exit status 2 where the checkpoint does not fit; the reason is the last line on standard error."""
    checkpoint, spec, target = map(Path, sys.argv[1:])
    try:
        network = network_of(checkpoint, ModelSpec.from_dict(json.loads(spec.read_text())))
    except CheckpointError as problem:
        sys.stderr.write(f"{checkpoint}: {problem}\n")
        return 2
    onnx.save(plain_model(network), target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
