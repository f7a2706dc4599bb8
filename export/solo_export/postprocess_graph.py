"""Post-processing as graph nodes, steps 2 to 7 of the reference; `solo_server.backends.cpu.postprocess` does it with numpy.

    scores ─► find_candidates ─► (masks of their cells) ─► select: stride filter, maskness, NMS, cut ─► draw: masks, boxes

The contract is mmdet's `SOLOHead` with matrix NMS (Wang et al., SOLOv2 section 3.3). Functions take and return names of
tensors. TopK orders equal values by index, like the stable sort of the server.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper
from solo_models.spec import ModelSpec, PostprocessSpec

from solo_export.draw_graph import not_empty
from solo_export.graph import GraphBuilder

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8


@dataclass(frozen=True, slots=True)
class Candidates:
    """Every (cell, class) above the threshold, in order of cell, then class; K of them, in U different cells.

    cells: `(U,) int64`, rising; rows: `(K,) int64`, indices into `cells`; labels: `(K,) int64`; scores: `(K,) float32`.
    """

    cells: str
    rows: str
    labels: str
    scores: str


@dataclass(frozen=True, slots=True)
class CellMasks:
    """Masks of the U cells. soft: `(U, H, W) float32` at the mask stride; areas, maskness: `(U,) float32`."""

    soft: str
    areas: str
    maskness: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Instances, best first; N = 0 is possible. scores: `(N,) float32`; labels, rows: `(N,) int64`, rows into `CellMasks`."""

    scores: str
    labels: str
    rows: str


def find_candidates(g: GraphBuilder, scores: str, settings: PostprocessSpec) -> Candidates:
    """From category scores `(cells, C) float32`.

    A category score is an upper bound of the final score: if the score threshold is above the candidate threshold, it applies
    here already.
    """
    higher = settings.score_threshold > settings.candidate_threshold
    threshold = g.constant(max(settings.candidate_threshold, settings.score_threshold))
    found = g.op("NonZero", g.op("GreaterOrEqual" if higher else "Greater", scores, threshold))
    named, labels = (g.op("Gather", found, g.constant(np.array(i)), axis=0) for i in (0, 1))
    cells, _, rows = g.ops("Unique", 3, named, sorted=1)
    return Candidates(cells, rows, labels, g.op("GatherND", scores, g.op("Transpose", found, perm=[1, 0])))


def select(g: GraphBuilder, spec: ModelSpec, candidates: Candidates, masks: CellMasks) -> Selection:
    """Masks larger than their level's stride, weighted by maskness, through NMS; at most `max_instances`."""
    strides = np.repeat(spec.strides, [grid * grid for grid in spec.grids]).astype(np.float32)
    limits = g.op("Gather", g.constant(strides, "cell_strides"), candidates.cells)
    large = g.op("Gather", g.op("Greater", masks.areas, limits), candidates.rows)
    passed = g.op("Squeeze", g.op("NonZero", large), g.constant([0]))
    some, none = g.body("suppression"), g.body("nothing_left")
    for tensor, dtype in zip(_suppressed(some, spec.postprocess, candidates, masks, passed), _DTYPES, strict=True):
        some.result(tensor, dtype, 1)
    for dtype in _DTYPES:
        none.result(none.constant(np.zeros(0, helper.tensor_dtype_to_np_dtype(dtype))), dtype, 1)
    return Selection(*g.choose(not_empty(g, passed), some, none))


_DTYPES = (FLOAT, INT64, INT64)


def _suppressed(
    g: GraphBuilder, settings: PostprocessSpec, candidates: Candidates, masks: CellMasks, passed: str
) -> tuple[str, str, str]:
    """Scores, labels and rows of the instances among the candidates `passed` `(n,) int64`, n >= 1."""
    rows, labels = (g.op("Gather", all_of, passed) for all_of in (candidates.rows, candidates.labels))
    weighted = g.op("Mul", g.op("Gather", candidates.scores, passed), g.op("Gather", masks.maskness, rows))
    scores, order = _best(g, weighted, settings.max_before_nms)
    rows, labels = g.op("Gather", rows, order), g.op("Gather", labels, order)
    if settings.nms != "none":
        better = _better(g, labels)
        ious = _ious(g, masks, rows, better, settings.mask_threshold)
        factor = _matrix_decay if settings.nms == "matrix" else _greedy_keep
        scores = g.op("Mul", scores, factor(g, ious, better, settings))
    scores, order = _best(g, scores, settings.max_instances)
    enough = g.op("GreaterOrEqual", scores, g.constant(settings.score_threshold))
    keep = g.op("And", enough, g.op("Greater", scores, g.constant(0.0)))
    scores, order = g.op("Compress", scores, keep), g.op("Compress", order, keep)
    return scores, g.op("Gather", labels, order), g.op("Gather", rows, order)


def _best(g: GraphBuilder, scores: str, most: int) -> tuple[str, str]:
    """The highest values, at most `most`, and their positions; equal ones keep their order."""
    number = g.op("Min", g.side(scores, 0), g.constant([most]))
    values, positions = g.ops("TopK", 2, scores, number)
    return values, positions


def _better(g: GraphBuilder, labels: str) -> str:
    """`(n, n) bool`: whether the row's mask comes before the column's and has the same label."""
    zero, one = g.constant(np.array(0)), g.constant(np.array(1))
    index = g.op("Range", zero, g.op("Squeeze", g.side(labels, 0)), one)
    first, second = ([g.op("Unsqueeze", values, g.constant([axis])) for values in (index, labels)] for axis in (1, 0))
    return g.op("And", g.op("Less", first[0], second[0]), g.op("Equal", first[1], second[1]))


def _ious(g: GraphBuilder, masks: CellMasks, rows: str, better: str, threshold: float) -> str:
    """`(n, n) float32`: IoU of binary masks where `better`, else 0. Products of 8-bit integers are exact."""
    inside = g.op("Cast", g.op("Greater", masks.soft, g.constant(threshold)), to=TensorProto.INT8)
    flat = g.op("Reshape", g.op("Gather", inside, rows), g.constant([0, -1]))
    left = g.op("Cast", flat, to=UINT8)  # uint8 by int8 is the pair that CPUs multiply fastest
    shared = g.op("Cast", g.op("MatMulInteger", left, g.op("Transpose", flat, perm=[1, 0])), to=FLOAT)
    area = g.op("Gather", masks.areas, rows)
    both = g.op("Add", *(g.op("Unsqueeze", area, g.constant([axis])) for axis in (1, 0)))
    return g.op("Where", better, g.op("Div", shared, g.op("Sub", both, shared)), g.constant(0.0))


def _matrix_decay(g: GraphBuilder, ious: str, better: str, settings: PostprocessSpec) -> str:
    """Factor of each mask `(n,)`: the strongest decay by a better mask, compensated by how much that one is suppressed itself."""
    relief = g.op("Unsqueeze", g.op("ReduceMax", ious, axes=[0], keepdims=0), g.constant([1]))
    if settings.decay_kernel == "gaussian":
        sigma = g.constant(-settings.sigma)
        decays = [g.op("Exp", g.op("Mul", g.op("Mul", iou, iou), sigma)) for iou in (ious, relief)]
    else:
        decays = [g.op("Sub", g.constant(1.0), iou) for iou in (ious, relief)]
        decays[1] = g.op("Max", decays[1], g.constant(float(np.finfo(np.float32).tiny)))
    factors = g.op("Where", better, g.op("Div", *decays), g.constant(1.0))
    return g.op("ReduceMin", factors, axes=[0], keepdims=0)


def _greedy_keep(g: GraphBuilder, ious: str, _better: str, settings: PostprocessSpec) -> str:
    """1 for each mask `(n,)` that no kept better mask overlaps by more than the threshold, else 0."""
    over = g.op("Cast", g.op("Greater", ious, g.constant(settings.nms_iou_threshold)), to=FLOAT)
    step = g.body("greedy")
    i, going, keep = step.parameter(INT64, 0), step.parameter(TensorProto.BOOL, 0), step.parameter(FLOAT, 1)
    hit = step.op("Mul", step.op("Gather", over, i), step.op("Gather", keep, i))
    step.result(going, TensorProto.BOOL, 0)
    step.result(step.op("Mul", keep, step.op("Sub", step.constant(1.0), hit)), FLOAT, 1)
    number = g.side(ious, 0)
    ones = g.op("ConstantOfShape", number, value=helper.make_tensor("value", FLOAT, [1], [1.0]))
    return g.loop(g.op("Squeeze", number), step, ones)[0]
