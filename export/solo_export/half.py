"""Half precision: a graph pass that makes convolutions, and what lies between them, float16.

requires: a float32 graph of ours whose convolution weights are initialisers.
call: `halve(model)`.
ensures: inputs and outputs stay as they are, float32; weights of convolutions are float16; types are explicit (Cast), as strongly
typed TensorRT networks need them. Pixels, GroupNorm, sampling positions, sigmoid and points-NMS stay float32: sums over whole maps
overflow half precision, and rounded scores would tie.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from solo_export.graph_pass import replace_nodes, replace_weights, rewrite_copy

KEEP_FLOAT = (".offset",)
FOLLOWERS = ("Relu", "Clip", "Add", "MaxPool", "Concat", "Slice")  # float16 if all their inputs are
HALF_MAX = float(np.finfo(np.float16).max)


class HalfPrecisionError(ValueError):
    """A weight is too large for float16; the message names its tensor."""


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in float16 where that is safe.

    Raises:
        HalfPrecisionError: a weight is beyond the largest float16.
        onnx.checker.ValidationError: the result is malformed (an error of the exporter).
    """
    return rewrite_copy(model, lambda graph: _Pass(graph).run())


class _Pass:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._weights = {t.name: t for t in graph.initializer}
        self._float_weights = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
        self._half: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._casts: dict[tuple[str, int], str] = {}
        self._new_weights: dict[str, onnx.TensorProto] = {}

    def run(self) -> None:
        for node in self._graph.node:
            copied = onnx.NodeProto.FromString(node.SerializeToString())
            if self._is_half(copied):
                self._to_half(copied)
            else:
                self._to_float(copied)
            self._nodes.append(copied)
        replace_nodes(self._graph, self._nodes)
        replace_weights(self._graph, self._new_weights.values())

    def _is_half(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Conv":
            return node.input[1] in self._weights and not any(k in node.input[1] for k in KEEP_FLOAT)
        produced = [name for name in node.input if name and name not in self._weights]
        return node.op_type in FOLLOWERS and bool(produced) and all(name in self._half for name in produced)

    def _to_half(self, node: onnx.NodeProto) -> None:
        for i, name in enumerate(node.input):
            if name in self._float_weights:
                node.input[i] = self._half_weight(name)
            elif name and name not in self._weights and name not in self._half:
                node.input[i] = self._cast(name, TensorProto.FLOAT16)
        self._half.update(node.output)

    def _to_float(self, node: onnx.NodeProto) -> None:
        for i, name in enumerate(node.input):
            if name in self._half and node.op_type != "Shape":
                node.input[i] = self._cast(name, TensorProto.FLOAT)

    def _cast(self, name: str, to: int) -> str:
        out = f"{name}.{'half' if to == TensorProto.FLOAT16 else 'float'}"
        if (name, to) not in self._casts:
            self._nodes.append(helper.make_node("Cast", [name], [out], name=out, to=to))
            self._casts[name, to] = out
        return out

    def _half_weight(self, name: str) -> str:
        out = f"{name}.half"
        if out not in self._new_weights:
            values = numpy_helper.to_array(self._weights[name])
            if float(np.abs(values).max(initial=0)) > HALF_MAX:
                raise HalfPrecisionError(f"{name}: holds values beyond {HALF_MAX:.0f}, the largest float16")
            self._new_weights[out] = numpy_helper.from_array(values.astype(np.float16), out)
        return out
