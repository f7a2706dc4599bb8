"""Soft masks of the selected instances to masks and boxes at the output size, as graph nodes: step 7 of the reference.

Last stage of the single-file model. As in `solo_results.rle`, two bilinear resizes (mask stride to padded image, cropped, to
output size) are one matrix per axis, multiplied only where the result can be above the threshold, one instance after another:
no float array of the image's size is ever built. The matrices are identity matrices passed through Resize.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto, helper

from solo_export.graph import GraphBuilder
from solo_export.mask_graph import resize_to

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8


@dataclass(frozen=True, slots=True)
class Sizes:
    """`(2,) int64` each, height and width: of the padded image, of the image within it, and of the result."""

    padded_hw: str
    image_hw: str
    output_hw: str


def draw(g: GraphBuilder, soft: str, rows: str, sizes: Sizes, threshold: float) -> tuple[str, str]:
    """`boxes (N, 4) float32` as x, y, width, height and `masks (N, H, W) uint8`, in pixels of the output size.

    soft: `(U, h, w) float32` at the mask stride; rows: `(N,) int64`, indices into `soft`; N = 0 gives empty results.
    """
    some, none = g.body("drawing"), g.body("nothing_found")
    drawn = _drawn(some, some.op("Gather", soft, rows), sizes, threshold)
    shape = none.op("Concat", none.constant([0]), sizes.output_hw, axis=0)
    empty_boxes = none.op("ConstantOfShape", none.constant([0, 4]))
    empty_masks = none.op("ConstantOfShape", shape, value=helper.make_tensor("value", UINT8, [1], [0]))
    for body, (boxes, masks) in ((some, drawn), (none, (empty_boxes, empty_masks))):
        body.result(boxes, FLOAT, 2)
        body.result(masks, UINT8, 3)
    boxes, masks = g.choose(not_empty(g, rows), some, none)
    return boxes, masks


def not_empty(g: GraphBuilder, tensor: str) -> str:
    """`(1,) bool`: whether a tensor of one axis is not empty."""
    return g.op("Greater", g.side(tensor, 0), g.constant([0]))


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of the output. matrix: `(length, taps) float32`; length: `(1,) int64`."""

    matrix: str
    length: str


@dataclass(frozen=True, slots=True)
class _Span:
    """The part of an axis that a mask can cover. start, stop: `(1,) int64`; matrix: `(stop - start, taps) float32`."""

    start: str
    stop: str
    matrix: str


def _drawn(g: GraphBuilder, soft: str, sizes: Sizes, threshold: float) -> tuple[str, str]:
    """Boxes and masks of `(N, h, w)`, N >= 1."""
    vertical, horizontal = (_axis(g, soft, axis, sizes) for axis in (0, 1))
    one = g.body("instance")
    mask = one.parameter(FLOAT, 2)
    above = one.op("Cast", one.op("Greater", mask, one.constant(threshold)), to=FLOAT)
    rows, columns = _span(one, vertical, above, 1), _span(one, horizontal, above, 0)
    wide = one.op("MatMul", mask, one.op("Transpose", columns.matrix, perm=[1, 0]))
    part = one.op("Greater", one.op("MatMul", rows.matrix, wide), one.constant(threshold))
    inside = one.op("Cast", part, to=UINT8)
    after = [one.op("Sub", axis.length, span.stop) for axis, span in ((vertical, rows), (horizontal, columns))]
    full = one.op("Pad", inside, one.op("Concat", rows.start, columns.start, *after, axis=0))
    one.result(_box(one, inside, rows, columns), FLOAT, 1)
    one.result(full, UINT8, 2)
    boxes, masks = g.scan(one, soft)
    return boxes, masks


def _axis(g: GraphBuilder, soft: str, axis: int, sizes: Sizes) -> _Axis:
    """Both resizes of one axis as a matrix: rows sum to one."""
    taps = g.side(soft, axis + 1)
    padded, image, output = (
        g.op("Slice", hw, g.constant([axis]), g.constant([axis + 1]))
        for hw in (sizes.padded_hw, sizes.image_hw, sizes.output_hw)
    )
    identity = g.op("EyeLike", g.op("ConstantOfShape", g.op("Concat", taps, taps, axis=0)))
    first = resize_to(g, g.op("Unsqueeze", identity, g.constant([0, 1])), g.op("Concat", padded, taps, axis=0))
    cropped = g.op("Slice", first, g.constant([0]), image, g.constant([2]))
    second = resize_to(g, cropped, g.op("Concat", output, taps, axis=0))
    return _Axis(g.op("Squeeze", second, g.constant([0, 1])), output)


def _span(g: GraphBuilder, axis: _Axis, above: str, other: int) -> _Span:
    """Output positions that have a tap in a row (a column, for `other` 0) with a value above the threshold.

    If there are none, since the mask lies in the padding, the span is the full axis: the mask is computed, and empty.
    """
    occupied = g.op("ReduceMax", above, axes=[other], keepdims=0)
    touched = g.op("Cast", g.op("Greater", g.op("MatMul", axis.matrix, occupied), g.constant(0.0)), to=UINT8)
    start, last = _ends(g, touched)
    stop = g.op("Add", last, g.constant([1]))
    return _Span(start, stop, g.op("Slice", axis.matrix, start, stop, g.constant([0])))


def _ends(g: GraphBuilder, line: str) -> tuple[str, str]:
    """First and last position `(1,) int64` of the highest value of `(n,) uint8`."""
    return g.op("ArgMax", line), g.op("ArgMax", line, select_last_index=1)


def _box(g: GraphBuilder, inside: str, rows: _Span, columns: _Span) -> str:
    """`(4,) float32`: x, y, width, height of the smallest box around a mask; zeros where it is empty."""
    starts, lengths = [], []
    for span, across in ((columns, 0), (rows, 1)):
        first, last = _ends(g, g.op("ReduceMax", inside, axes=[across], keepdims=0))
        starts.append(g.op("Add", span.start, first))
        lengths.append(g.op("Add", g.op("Sub", last, first), g.constant([1])))
    filled = g.op("Cast", g.op("ReduceMax", inside, keepdims=0), to=INT64)
    return g.op("Cast", g.op("Mul", g.op("Concat", *starts, *lengths, axis=0), filled), to=FLOAT)
