"""A small builder of ONNX graphs, opset 17: one method a layer, weights as initialisers, names that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

Shape = Sequence[int | str]


class GraphBuilder:
    """Collects nodes in execution order; every method returns the name of the tensor it makes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def input(self, name: str, dtype: int, shape: Shape) -> str:
        """Declare a graph input; strings in `shape` are dynamic axes."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def output(self, tensor: str, name: str, shape: Shape) -> None:
        """Declare a float32 graph output."""
        self._nodes.append(helper.make_node("Identity", [tensor], [name], name=f"output_{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def constant(self, value: NDArray[Any] | Sequence[int] | float, name: str = "") -> str:
        """An initialiser: integers become int64, floats float32; equal small constants are shared."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        key = name or f"const_{array.dtype}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()[:64]}"
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), key)
        return key

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        self._count += 1
        out = f"{kind.lower()}_{self._count}"
        self._nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def conv(self, x: str, weight: NDArray[Any], bias: NDArray[Any] | None, name: str, **attributes: Any) -> str:
        """Convolution; `pads` is `[top, left, bottom, right]`, `strides` and `group` as in ONNX."""
        inputs = [x, self.constant(weight, f"{name}.weight")]
        if bias is not None:
            inputs.append(self.constant(bias, f"{name}.bias"))
        return self.op("Conv", *inputs, kernel_shape=list(weight.shape[2:]), **attributes)

    def group_norm(self, x: str, weight: NDArray[Any], bias: NDArray[Any], groups: int, eps: float, name: str) -> str:
        """GroupNorm as a normalisation over groups laid out as instances, which every opset-17 runtime has."""
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

    def model(self) -> onnx.ModelProto:
        """The finished model, checked.

        Raises:
            onnx.checker.ValidationError: the graph is malformed (an error of the exporter).
        """
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, list(self._constants.values()))
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="solo export")
        onnx.checker.check_model(model, full_check=True)
        return model
