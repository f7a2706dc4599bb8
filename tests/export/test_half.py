"""Half precision: convolutions are float16, what must not be is not, and the network answers nearly as before."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto
from solo_export.graph import GraphBuilder
from solo_export.half import HalfPrecisionError, halve
from solo_export.onnx import export_graphs
from solo_models.network import SoloNetwork
from support.images import smooth_image
from support.networks import tiny_network
from support.specs import deformable_spec

FULL_PRECISION = {"InstanceNormalization", "Sigmoid", "GridSample", "Equal", "Div", "Sub", "Mul"}


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor of the graph."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {v.name: v.type.tensor_type.elem_type for v in values} | {t.name: t.data_type for t in graph.initializer}


def _check_types(model: onnx.ModelProto) -> None:
    types = _types(model)
    for node in model.graph.node:
        if node.op_type == "Conv":
            wanted = TensorProto.FLOAT if ".offset" in node.input[1] else TensorProto.FLOAT16
            assert [types[name] for name in node.input] == [wanted] * len(node.input)
        if node.op_type in FULL_PRECISION:
            assert TensorProto.FLOAT16 not in [types[name] for name in node.input if name]
    assert all(o.type.tensor_type.elem_type == TensorProto.FLOAT for o in model.graph.output)


def _run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return list(ort.InferenceSession(model.SerializeToString(), options).run(None, feeds))


def test_halved_networks_give_nearly_the_same_results(network: SoloNetwork) -> None:
    graphs = export_graphs(network)
    categories, masks = halve(graphs.categories), halve(graphs.masks)
    _check_types(categories)
    _check_types(masks)
    feeds = {"images": smooth_image(128, 160)[None], "image_hw": np.array([[120, 160]], np.int64)}
    before, after = _run(graphs.categories, **feeds), _run(categories, **feeds)
    for level, halved in zip(before[1:], after[1:], strict=True):
        assert np.abs(halved - level).max() < 5e-3 * np.abs(level).max()
    whole, halved = (_run(m, level=before[1])[0] for m in (graphs.masks, masks))
    assert np.abs(halved - whole).max() < 1e-2 * np.abs(whole).max()


def test_sampling_positions_of_deformable_networks_stay_float32() -> None:
    graphs = export_graphs(tiny_network("decoupled_light", deformable_spec("decoupled_light")))
    categories = halve(graphs.categories)
    _check_types(categories)
    assert any(".offset" in tensor.name for tensor in categories.graph.initializer)


def test_a_halved_graph_is_about_half_as_large(network: SoloNetwork) -> None:
    model = export_graphs(network).categories
    assert halve(model).ByteSize() < 0.52 * model.ByteSize()


def test_weights_beyond_float16_are_named() -> None:
    g = GraphBuilder("large")
    x = g.input("x", TensorProto.FLOAT, (1, 1, 2, 2))
    g.output(g.conv(x, np.full((1, 1, 1, 1), 7e4), None, "a"), "y", (1, 1, 2, 2))
    with pytest.raises(HalfPrecisionError, match=r"a\.weight: holds values beyond 65504"):
        halve(g.model())
