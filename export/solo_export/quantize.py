"""Static INT8: a graph pass that puts QuantizeLinear/DequantizeLinear pairs around convolutions, given ranges of activations.

requires: a float32 graph of ours whose convolution weights are initialisers; a `(low, high)` range for every name of `points`.
call: `quantize(model, ranges, form)`.
ensures: inputs and outputs stay as they are; weights of quantized convolutions are int8, with a scale per output channel;
activations have a scale per tensor, in the type that `form` names.

Where Relu or Clip follows a convolution, the pair follows that node. There are two forms.

    cpu       activations uint8 with a zero point, weights of 7 bits, bias int32
    tensorrt  activations int8 around zero, weights of 8 bits, bias float32: TensorRT refuses zero points, and int32 as input of
              DequantizeLinear (onnx-tensorrt, docs/operators.md)

Weights take 7 bits for CPUs: without VNNI instructions x86 adds pairs of products in 16 bits, which 8-bit weights overflow (ONNX
Runtime documentation, quantization, "reduce_range"). On the demo model, calibrated on 100 images, mask AP is 15.8 so, 15.4 with
8 bits. Symmetric activations are as accurate, but ran at less than half the speed in ONNX Runtime on a CPU with AVX2.

Tensor names in the graphs keep their spelling (`.quantized`, `.dequantized`): the server's kernels look them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from solo_export.graph_pass import replace_nodes, replace_weights, rewrite_copy

INT32_MAX = 2.0**31 - 1
ACTIVATIONS = ("Relu", "Clip")
KEEP_FLOAT = ("coordinates", ".offset", "categories.")  # tiny, or sensitive to small errors: see docs/export.md

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Form:
    """How activations and weights are rounded. weight_limit: the largest rounded weight; rounds_bias: whether biases are int32."""

    name: str
    activations: type[np.uint8] | type[np.int8]
    weight_limit: int
    rounds_bias: bool

    @property
    def lowest(self) -> int:
        """The lowest rounded activation."""
        return int(np.iinfo(self.activations).min)

    @property
    def highest(self) -> int:
        """The highest rounded activation."""
        return int(np.iinfo(self.activations).max)


FOR_CPU = Form("cpu", np.uint8, 63, rounds_bias=True)
FOR_TENSORRT = Form("tensorrt", np.int8, 127, rounds_bias=False)
FORMS = {form.name: form for form in (FOR_CPU, FOR_TENSORRT)}


@dataclass(frozen=True, slots=True)
class QuantizedConv:
    """A convolution that becomes INT8: its node, the tensor that it reads, and the tensor after it that is rounded."""

    node: onnx.NodeProto
    input: str
    output: str


def points(model: onnx.ModelProto) -> list[str]:
    """Names of the tensors whose ranges `quantize` needs."""
    names = (name for conv in _convolutions(model.graph) for name in (conv.input, conv.output))
    return list(dict.fromkeys(names))


def quantize(model: onnx.ModelProto, ranges: Ranges, form: Form = FOR_CPU) -> onnx.ModelProto:
    """A copy of `model` with INT8 convolutions.

    Raises:
        KeyError: a range is missing.
        onnx.checker.ValidationError: the result is malformed (an error of the exporter).
    """
    return rewrite_copy(model, lambda graph: _Pass(graph, ranges, form).run())


class _Pass:
    def __init__(self, graph: onnx.GraphProto, ranges: Ranges, form: Form) -> None:
        self._graph, self._ranges, self._form = graph, ranges, form
        self._convolutions = _convolutions(graph)
        self._weights = {t.name: t for t in graph.initializer}
        self._constants: dict[str, onnx.TensorProto] = {}

    def run(self) -> None:
        produced = {conv.output for conv in self._convolutions}
        read = {conv.input for conv in self._convolutions} | produced
        pairs = {name: self._pair(name) for name in sorted(read)}  # a set's own order differs between processes
        convolved = {conv.node.output[0] for conv in self._convolutions}
        for node in self._graph.node:
            is_conv = node.output[0] in convolved
            for i, name in enumerate(node.input):
                if name in pairs and (name in produced or (is_conv and i == 0) or node.op_type == "Add"):
                    node.input[i] = _dequantized(name)
        for conv in self._convolutions:
            self._quantize_weights(conv)
        self._insert(pairs)
        replace_weights(self._graph, self._constants.values())

    def _pair(self, name: str) -> list[onnx.NodeProto]:
        low, high = self._ranges[name]
        scale, zero = scale_and_zero(low, high, self._form)
        self._constants[f"{name}.scale"] = _tensor(f"{name}.scale", np.float32(scale))
        self._constants[f"{name}.zero"] = _tensor(f"{name}.zero", self._form.activations(zero))
        return _quantize_nodes(name, self._form.activations.__name__)

    def _quantize_weights(self, conv: QuantizedConv) -> None:
        """Weights to int8 and, if the form says so, bias to int32 in units of input step times weight step."""
        name, limit = conv.node.input[1], self._form.weight_limit
        weight = numpy_helper.to_array(self._weights[name]).astype(np.float64)
        steps = weight_scales(weight, limit)
        shape = (-1, *[1] * (weight.ndim - 1))
        rounded = np.clip(np.rint(weight / steps.reshape(shape)), -limit, limit).astype(np.int8)
        conv.node.input[1] = self._dequantize(name, rounded, steps.astype(np.float32))
        if len(conv.node.input) > 2 and self._form.rounds_bias:
            input_step = np.float32(scale_and_zero(*self._ranges[conv.input], self._form)[0])
            units = steps.astype(np.float32) * input_step
            bias = numpy_helper.to_array(self._weights[conv.node.input[2]]).astype(np.float64)
            rounded_bias = np.clip(np.rint(bias / units), -INT32_MAX, INT32_MAX).astype(np.int32)
            conv.node.input[2] = self._dequantize(f"{conv.node.output[0]}.bias", rounded_bias, units)

    def _dequantize(self, name: str, values: NDArray[np.generic], scale: NDArray[np.float32]) -> str:
        """Replace an initialiser by its rounded form; an initialiser that two nodes read is rounded once."""
        out = _dequantized(name)
        if f"{name}.quantized" not in self._constants:
            self._constants[f"{name}.quantized"] = _tensor(f"{name}.quantized", values)
            self._constants[f"{name}.scale"] = _tensor(f"{name}.scale", scale)
            self._constants[f"{name}.zero"] = _tensor(f"{name}.zero", np.zeros(len(scale), values.dtype))
            inputs = [f"{name}.quantized", f"{name}.scale", f"{name}.zero"]
            node = helper.make_node("DequantizeLinear", inputs, [out], name=f"{name}.dequantize", axis=0)
            self._graph.node.insert(0, node)
        return out

    def _insert(self, pairs: Mapping[str, list[onnx.NodeProto]]) -> None:
        """Put each pair directly after the node that outputs its tensor; pairs of graph inputs come first."""
        ordered: list[onnx.NodeProto] = []
        for graph_input in self._graph.input:
            ordered += pairs.get(graph_input.name, [])
        for node in self._graph.node:
            ordered.append(node)
            for name in node.output:
                ordered += pairs.get(name, [])
        replace_nodes(self._graph, ordered)


def scale_and_zero(low: float, high: float, form: Form = FOR_CPU) -> tuple[float, int]:
    """Step and zero point of 8 bits that cover `low..high` and represent zero exactly; for int8 the zero point is 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if form.activations is np.int8:
        return float(np.float32(max(-low / form.highest, high / form.highest, 1e-12))), 0
    scale = float(np.float32(max((high - low) / 255, 1e-12)))
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


def weight_scales(weight: NDArray[np.float64], limit: int = FOR_CPU.weight_limit) -> NDArray[np.float64]:
    """One step per output channel, `(O,)`; `weight` is `(O, ...)`."""
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    scales: NDArray[np.float64] = np.maximum(largest / limit, 1e-12)
    return scales


def _convolutions(graph: onnx.GraphProto) -> list[QuantizedConv]:
    weights = {t.name for t in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    convolutions = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in weights and not any(k in node.input[1] for k in KEEP_FLOAT):
            next_nodes = readers.get(node.output[0], [])
            fused = len(next_nodes) == 1 and next_nodes[0].op_type in ACTIVATIONS
            output = next_nodes[0].output[0] if fused else node.output[0]
            convolutions.append(QuantizedConv(node, node.input[0], output))
    return convolutions


def _quantize_nodes(name: str, dtype: str) -> list[onnx.NodeProto]:
    scale, zero, rounded = f"{name}.scale", f"{name}.zero", f"{name}.{dtype}"
    return [
        helper.make_node("QuantizeLinear", [name, scale, zero], [rounded], name=f"{name}.quantize"),
        helper.make_node("DequantizeLinear", [rounded, scale, zero], [_dequantized(name)], name=f"{name}.dequantize"),
    ]


def _dequantized(name: str) -> str:
    return f"{name}.dequantized"


def _tensor(name: str, values: NDArray[np.generic] | np.generic) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)
