"""Every graph keeps to what onnx-tensorrt's docs/operators.md lists for TensorRT 10.4: operators, types and restrictions.

What is listed here is in the lists of both 9.2 and 10.15. A builder that can be run here (tests/gpu_packages) accepts more.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, shape_inference
from solo_export.calibrate import Calibrator
from solo_export.half import halve
from solo_export.onnx import Graphs, export_graphs
from solo_export.quantize import FOR_CPU, FOR_TENSORRT, Form, quantize
from solo_export.source import read_through_cast
from support.images import smooth_image
from support.networks import tiny_network
from support.specs import VARIANTS, deformable_spec

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
NUMBERS = FLOATS | {TensorProto.INT32, TensorProto.INT64}
PLAIN = NUMBERS | {TensorProto.BOOL}
TYPES = {
    **dict.fromkeys(("Clip", "Conv", "GridSample", "InstanceNormalization", "MaxPool", "Resize", "Sigmoid"), FLOATS),
    **dict.fromkeys(("Add", "Div", "Equal", "Less", "Max", "Mul", "Range", "Relu", "Sub"), NUMBERS),
    **dict.fromkeys(
        ("Concat", "Expand", "Identity", "Reshape", "Shape", "Slice", "Squeeze", "Transpose", "Where"), PLAIN
    ),
    "And": {TensorProto.BOOL},
    "Cast": PLAIN | {TensorProto.UINT8},
    "QuantizeLinear": FLOATS,
    "DequantizeLinear": {TensorProto.INT8},
}
CONSTANT_INPUTS = {"Squeeze": (1,), "Slice": (3,), "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2)}
RESIZES = {
    ("linear", "half_pixel", "round_prefer_floor"),
    ("nearest", "asymmetric", "floor"),
}  # the last is `linear`'s default


def breaches(model: onnx.ModelProto) -> Iterator[str]:
    """What TensorRT 10.4 does not list of all that the graph has."""
    types = dict(_types(model))
    constants = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        read = types[node.input[1] if node.op_type == "Where" else node.input[0]]
        if node.op_type not in TYPES:
            yield f"{node.op_type}: is not listed"
        elif read not in TYPES[node.op_type]:
            yield f"{node.op_type}: reads {TensorProto.DataType.Name(read)}"
        yield from _restricted(node, constants)
    if [(opset.domain, opset.version) for opset in model.opset_import] != [("", 17)]:
        yield "opset: is not 17"


def _types(model: onnx.ModelProto) -> Iterator[tuple[str, int]]:
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name, value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        yield tensor.name, tensor.data_type


def _restricted(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> Iterator[str]:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    for i in CONSTANT_INPUTS.get(node.op_type, ()):
        if i < len(node.input) and node.input[i] not in constants:
            yield f"{node.op_type}: input {i} is no constant"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and numpy_helper.to_array(constants[node.input[2]]).any():
        yield f"{node.op_type}: has a zero point"
    if node.op_type == "Resize":
        defaults = {"nearest_mode": b"round_prefer_floor", **attributes}
        how = tuple(defaults[n].decode() for n in ("mode", "coordinate_transformation_mode", "nearest_mode"))
        if how not in RESIZES:
            yield f"Resize: {how}"
    if node.op_type == "MaxPool" and len(node.output) > 1:
        yield "MaxPool: asks for indices"


def _in_int8(graphs: Graphs, form: Form) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    categories, masks = Calibrator(graphs.categories, form), Calibrator(graphs.masks, form)
    _, level, *_ = categories.run({"images": smooth_image(64, 96)[None], "image_hw": np.array([[60, 96]], np.int64)})
    masks.run({"level": level})
    quantized = quantize(graphs.categories, categories.ranges(), form), quantize(graphs.masks, masks.ranges(), form)
    return quantized[0], quantized[1]


IN_PRECISION: Mapping[str, Callable[[Graphs], tuple[onnx.ModelProto, onnx.ModelProto]]] = {
    "fp32": lambda graphs: (graphs.categories, graphs.masks),
    "fp16": lambda graphs: (halve(graphs.categories), halve(graphs.masks)),
    "int8": lambda graphs: _in_int8(graphs, FOR_TENSORRT),
}


@pytest.fixture(scope="module", params=[*VARIANTS, "deformable"])
def graphs(request: pytest.FixtureRequest) -> Graphs:
    if request.param == "deformable":
        return export_graphs(tiny_network("solo", deformable_spec("solo")))
    return export_graphs(tiny_network(request.param))


@pytest.mark.parametrize("precision", IN_PRECISION)
def test_graphs_keep_to_what_tensorrt_lists(graphs: Graphs, precision: str) -> None:
    for model in IN_PRECISION[precision](graphs):
        assert set(breaches(model)) == set()


def test_int8_for_cpus_needs_what_tensorrt_does_not_list() -> None:
    graphs = export_graphs(tiny_network("decoupled_light"))
    found = set(breaches(_in_int8(graphs, FOR_CPU)[0]))
    assert found == {
        "DequantizeLinear: reads UINT8",
        "DequantizeLinear: reads INT32",
        "DequantizeLinear: has a zero point",
        "QuantizeLinear: has a zero point",
    }


def test_exporting_an_older_bundle_again_removes_the_shape_of_uint8_images() -> None:
    graph = export_graphs(tiny_network("decoupled_light")).categories
    cast = next(node for node in graph.graph.node if node.op_type == "Cast").output[0]
    older = onnx.ModelProto.FromString(graph.SerializeToString())
    for node in older.graph.node:
        if node.op_type == "Shape" and node.input[0] == cast:
            node.input[0] = "images"
    assert set(breaches(older)) == {"Shape: reads UINT8"}
    assert read_through_cast(older) == graph
    assert read_through_cast(graph) == graph
