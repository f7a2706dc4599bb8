"""`solo export --single-file`: one ONNX file from image to instances, for any ONNX Runtime, with no code of ours.

    images ─► categories graph ─► candidates ─► level by level: if any, masks graph and masks of those cells ─► select ─► draw

Both network graphs are copied as they are, in the precision in which they were exported; post-processing is float32. A level's
masks are inside an If: without candidates its towers do not run. Weights are stored once, outside the branches.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto
from solo_models.bundle import Kernels, kernel_shapes
from solo_models.spec import ModelSpec

from solo_export.draw_graph import Sizes, draw, not_empty
from solo_export.graph import GraphBuilder
from solo_export.mask_graph import measure, soft_masks
from solo_export.postprocess_graph import CellMasks, find_candidates, select

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8


class SingleFileError(ValueError):
    """The graphs and kernels do not match the specification."""


def single_file_model(
    spec: ModelSpec, categories: onnx.ModelProto, masks: onnx.ModelProto, kernels: Kernels, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Compose exported graphs and kernels into one model with post-processing inside; see docs/single-file.md.

    Inputs `images (1, height, width, 3) uint8`, `image_hw (1, 2) int64`, `output_hw (2,) int64`; outputs, N instances best first:
    `boxes (N, 4) float32`, `scores (N,) float32`, `labels (N,) int64`, `masks (N, H, W) uint8`.

    Raises:
        SingleFileError: inputs, outputs or kernels do not match `spec`.
        InlineError: a graph is not of opset 17 or uses operators of other domains.
    """
    _check(spec, categories, masks, kernels)
    g = GraphBuilder("solo")
    images = g.input("images", UINT8, (1, "height", "width", 3))
    image_hw, output_hw = g.input("image_hw", INT64, (1, 2)), g.input("output_hw", INT64, (2,))
    sizes = Sizes(g.op("Shape", images, start=1, end=3), g.op("Squeeze", image_hw, g.constant([0])), output_hw)
    network = g.inline(categories, "categories/", "categories/", {"images": images, "image_hw": image_hw})
    scores, *levels = (
        _cast(g, tensor, *types) for tensor, types in zip(network, _types(categories, masks), strict=True)
    )
    candidates = find_candidates(g, g.op("Squeeze", scores, g.constant([0])), spec.postprocess)
    towers = _Towers(g, spec, masks, kernels, sizes.padded_hw)
    found = towers.cell_masks(levels, candidates.cells)
    selection = select(g, spec, candidates, found)
    boxes, drawn = draw(g, found.soft, selection.rows, sizes, spec.postprocess.mask_threshold)
    g.output(boxes, "boxes", ("instances", 4))
    g.output(selection.scores, "scores", ("instances",))
    g.output(selection.labels, "labels", ("instances",), INT64)
    g.output(drawn, "masks", ("instances", "output_height", "output_width"), UINT8)
    return g.model(metadata)


class _Towers:
    """Masks of selected cells, level by level."""

    def __init__(
        self, g: GraphBuilder, spec: ModelSpec, masks: onnx.ModelProto, kernels: Kernels, padded_hw: str
    ) -> None:
        self._g, self._spec, self._masks, self._kernels = g, spec, masks, kernels
        self._mask_hw = g.op("Div", padded_hw, g.constant([spec.mask_stride]))
        self._first_cells = np.cumsum([0, *(grid * grid for grid in spec.grids)])

    def cell_masks(self, levels: list[str], cells: str) -> CellMasks:
        """Masks of the cells `(U,) int64`, rising, and thus level by level."""
        parts = [self._of_level(i, level, cells) for i, level in enumerate(levels)]
        if len(parts) == 1:
            return CellMasks(*parts[0])
        return CellMasks(*(self._g.op("Concat", *same, axis=0) for same in zip(*parts, strict=True)))

    def _of_level(self, level: int, features: str, cells: str) -> list[str]:
        """Soft masks, areas and maskness of the `cells` of this level."""
        g = self._g
        first, beyond = (g.constant(np.array(cell)) for cell in self._first_cells[level : level + 2])
        here = g.op("And", g.op("GreaterOrEqual", cells, first), g.op("Less", cells, beyond))
        within = g.op("Sub", g.op("Compress", cells, here), first)
        some, none = g.body(f"level_{level}"), g.body(f"no_level_{level}")
        soft = self._soft(some, level, features, within)
        empty = none.op("ConstantOfShape", none.op("Concat", none.constant([0]), self._mask_hw, axis=0))
        zero = none.constant(np.zeros(0))
        areas, maskness = measure(some, soft, self._spec.postprocess.mask_threshold)
        for body, results in ((some, (soft, areas, maskness)), (none, (empty, zero, zero))):
            for tensor, rank in zip(results, (3, 1, 1), strict=True):
                body.result(tensor, FLOAT, rank)
        return g.choose(not_empty(g, within), some, none)

    def _soft(self, g: GraphBuilder, level: int, features: str, within: str) -> str:
        outputs = g.inline(self._masks, f"masks_{level}/", "masks/", {"level": features})
        kinds = [_kind(output) for output in self._masks.graph.output]
        towers = [_cast(g, tensor, kind, FLOAT) for tensor, kind in zip(outputs, kinds, strict=True)]
        return soft_masks(g, self._spec, self._kernels, level, within, towers, self._mask_hw)


def _check(spec: ModelSpec, categories: onnx.ModelProto, masks: onnx.ModelProto, kernels: Kernels) -> None:
    towers = 2 if spec.variant == "decoupled" else 1
    expected = {
        "categories": (["images", "image_hw"], ["scores", *(f"level_{i}" for i in range(len(spec.grids)))]),
        "masks": (["level"], [f"mask_features_{i}" for i in range(towers)]),
    }
    for (name, (inputs, outputs)), model in zip(expected.items(), (categories, masks), strict=True):
        for kind, names, values in (("inputs", inputs, model.graph.input), ("outputs", outputs, model.graph.output)):
            if [value.name for value in values] != names:
                raise SingleFileError(f"{name}: {kind} must be {names}, are {[value.name for value in values]}")
    for name, shape in kernel_shapes(spec).items():
        if name not in kernels or kernels[name].shape != shape:
            raise SingleFileError(f"kernels: {name}: is missing, or not of shape {shape}")


def _types(categories: onnx.ModelProto, masks: onnx.ModelProto) -> list[tuple[int, int]]:
    """The actual and the required type of each output of the categories graph."""
    actual = [_kind(output) for output in categories.graph.output]
    return list(zip(actual, [FLOAT, *[_kind(masks.graph.input[0])] * (len(actual) - 1)], strict=True))


def _kind(value: onnx.ValueInfoProto) -> int:
    return value.type.tensor_type.elem_type


def _cast(g: GraphBuilder, tensor: str, actual: int, required: int) -> str:
    return tensor if actual == required else g.op("Cast", tensor, to=required)
