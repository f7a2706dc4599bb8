"""A small builder of ONNX graphs, opset 17: one method per layer, weights as initialisers, readable names.

A branch of an If, or the body of a Scan or Loop, is a builder too: `body()` returns one. It shares the constants of the model, so
that a weight used in several branches is stored once. `inline` copies a finished model into the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

Shape = Sequence[int | str | None]


class InlineError(ValueError):
    """A model that cannot be copied into another graph, because of its opset, an operator domain or a function."""


class GraphBuilder:
    """Collects nodes in execution order; every method returns the name of its output tensor."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._numbers: Iterator[int] = count(1)

    def input(self, name: str, dtype: int, shape: Shape) -> str:
        """Declare a graph input; strings in `shape` are dynamic axes."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def output(self, tensor: str, name: str, shape: Shape, dtype: int = TensorProto.FLOAT) -> None:
        """Declare a graph output."""
        self._nodes.append(helper.make_node("Identity", [tensor], [name], name=f"output_{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))

    def constant(self, value: NDArray[Any] | Sequence[int] | float, name: str = "") -> str:
        """An initialiser: integers become int64, floats float32; equal unnamed constants are shared."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        key = name or f"const_{array.dtype}_{'x'.join(map(str, array.shape))}_{_digest(array)}"
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), key)
        return key

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """One node with its first `outputs` outputs."""
        name = f"{kind.lower()}_{next(self._numbers)}"
        names = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names

    def conv(self, x: str, weight: NDArray[Any], bias: NDArray[Any] | None, name: str, **attributes: Any) -> str:
        """Convolution; `pads` is `[top, left, bottom, right]`, `strides` and `group` as in ONNX."""
        inputs = [x, self.constant(weight, f"{name}.weight")]
        if bias is not None:
            inputs.append(self.constant(bias, f"{name}.bias"))
        return self.op("Conv", *inputs, kernel_shape=list(weight.shape[2:]), **attributes)

    def group_norm(self, x: str, weight: NDArray[Any], bias: NDArray[Any], groups: int, eps: float, name: str) -> str:
        """GroupNorm as InstanceNormalization over groups, which every opset-17 runtime has."""
        grouped = self.op("Reshape", x, self.constant([0, groups, -1]))
        one, zero = self.constant(np.ones(groups), f"ones_{groups}"), self.constant(np.zeros(groups), f"zeros_{groups}")
        normed = self.op("InstanceNormalization", grouped, one, zero, epsilon=eps)
        back = self.op("Reshape", normed, self.op("Shape", x))
        scaled = self.op("Mul", back, self.constant(weight.reshape(-1, 1, 1), f"{name}.weight"))
        return self.op("Add", scaled, self.constant(bias.reshape(-1, 1, 1), f"{name}.bias"))

    def side(self, x: str, axis: int) -> str:
        """The length of one axis as an int64 tensor of shape (1,)."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def resize(self, x: str, height: str, width: str, mode: str = "linear") -> str:
        """Resize to a size given by two int64 tensors of shape (1,); bilinear without antialias, or nearest."""
        sizes = self.op("Concat", self.op("Shape", x, start=0, end=2), height, width, axis=0)
        how = {"mode": "nearest", "nearest_mode": "floor"} if mode == "nearest" else {"mode": "linear"}
        transform = "asymmetric" if mode == "nearest" else "half_pixel"
        return self.op("Resize", x, "", "", sizes, coordinate_transformation_mode=transform, **how)

    def body(self, name: str) -> GraphBuilder:
        """A builder of a branch or loop body. It can read every tensor of this graph so far, and shares its constants."""
        inner = GraphBuilder(f"{name}_{next(self._numbers)}")
        inner._constants, inner._numbers = self._constants, self._numbers
        return inner

    def parameter(self, dtype: int, rank: int) -> str:
        """Declare an input of a loop body."""
        return self.input(f"parameter_{next(self._numbers)}", dtype, [None] * rank)

    def result(self, tensor: str, dtype: int, rank: int) -> None:
        """Declare an output of a branch or loop body; it may be a tensor of the outer graph."""
        self.output(tensor, f"result_{next(self._numbers)}", [None] * rank, dtype)

    def choose(self, condition: str, then: GraphBuilder, otherwise: GraphBuilder) -> list[str]:
        """The results of one of two bodies; only the chosen one runs. `condition`: one bool."""
        branches = {"then_branch": then._graph(), "else_branch": otherwise._graph()}
        return self.ops("If", len(then._outputs), condition, **branches)

    def scan(self, body: GraphBuilder, *inputs: str) -> list[str]:
        """The body for each item of the first axis of `inputs`, its results stacked along a new first axis."""
        return self.ops("Scan", len(body._outputs), *inputs, body=body._graph(), num_scan_inputs=len(inputs))

    def loop(self, trips: str, body: GraphBuilder, *carried: str) -> list[str]:
        """The body `trips` times: parameters (iteration, condition, carried...), results (condition, carried...)."""
        return self.ops("Loop", len(body._outputs) - 1, trips, "", *carried, body=body._graph())

    def inline(self, model: onnx.ModelProto, prefix: str, weights: str, inputs: Mapping[str, str]) -> list[str]:
        """Copy a model's nodes; `inputs` says which tensor each of its inputs is. Returns its outputs in order.

        Tensors get `prefix` before their names, initialisers `weights`: copies with equal `weights` share them.

        Raises:
            InlineError: the model is not of our opset, has operators of other domains, functions of its own, or a cycle.
        """
        _check_inlinable(model)
        graph = model.graph
        names = {"": "", **inputs, **{tensor.name: weights + tensor.name for tensor in graph.initializer}}
        for tensor in graph.initializer:
            if names[tensor.name] not in self._constants:
                self._constants[names[tensor.name]] = _renamed_tensor(tensor, names[tensor.name])
        self._nodes.extend(_renamed(node, lambda name: names.get(name, prefix + name)) for node in _in_order(graph))
        return [names.get(output.name, prefix + output.name) for output in graph.output]

    def model(self, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
        """The finished model, checked, with `metadata` as its metadata properties.

        Raises:
            onnx.checker.ValidationError: the graph is malformed (an error of the exporter).
        """
        graph = self._graph()
        graph.initializer.extend(self._constants.values())
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="solo export")
        helper.set_model_props(model, dict(metadata or {}))
        onnx.checker.check_model(model, full_check=True)
        return model

    def _graph(self) -> onnx.GraphProto:
        return helper.make_graph(self._nodes, self._name, self._inputs, self._outputs)


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def _check_inlinable(model: onnx.ModelProto) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("", opsets.get("ai.onnx")) != OPSET:
        raise InlineError(f"{model.graph.name}: is of opset {opsets}, not {OPSET}")
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if foreign:
        raise InlineError(f"{model.graph.name}: has operators of the domain {foreign[0]!r}")
    if model.functions or model.graph.sparse_initializer:
        raise InlineError(f"{model.graph.name}: has functions or sparse weights")


def _in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes in topological order; ONNX Runtime's float16 converter writes them in another."""
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    ordered: list[onnx.NodeProto] = []
    waiting = list(graph.node)
    while waiting:
        late = []
        for node in waiting:
            if known.issuperset(node.input):
                known.update(node.output)
                ordered.append(node)
            else:
                late.append(node)
        if len(late) == len(waiting):
            raise InlineError(
                f"{graph.name}: {late[0].name} reads a tensor that no node outputs, or the graph has a cycle"
            )
        waiting = late
    return ordered


def _renamed(node: onnx.NodeProto, rename: Callable[[str], str]) -> onnx.NodeProto:
    """A copy with every name changed, also inside its branches and bodies."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = rename(node.name)
    copy.input[:], copy.output[:] = map(rename, node.input), map(rename, node.output)
    for graph in (attribute.g for attribute in copy.attribute if attribute.type == onnx.AttributeProto.GRAPH):
        for named in (*graph.input, *graph.output, *graph.initializer):
            named.name = rename(named.name)
        inner = [_renamed(each, rename) for each in graph.node]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(inner)
    return copy


def _renamed_tensor(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy
