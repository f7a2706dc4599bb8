"""INT8: pairs stand where they should, rounding is what it says, and a quantized graph answers nearly as before."""

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from solo_export.calibrate import Calibrator, best_range
from solo_export.graph import GraphBuilder
from solo_export.onnx import Graphs, export_graphs
from solo_export.quantize import FOR_CPU, FOR_TENSORRT, FORMS, Form, points, quantize, scale_and_zero, weight_scales
from solo_models.bundle import INT8_FORMS
from solo_models.network import SoloNetwork
from solo_server.backends.cpu.runtimes.onnxruntime import WITHOUT_INT8_PRODUCTS
from support.images import smooth_image


def _two_convolutions() -> onnx.ModelProto:
    """x -> convolution a -> Relu -> convolution b -> y, with round weights."""
    g = GraphBuilder("two")
    x = g.input("x", onnx.TensorProto.FLOAT, (1, 1, 4, 5))
    a = g.conv(x, np.full((2, 1, 1, 1), [[[[1.0]]], [[[-63.0]]]]), np.array([0.4, -1.0]), "a")
    b = g.conv(g.op("Relu", a), np.ones((1, 2, 3, 3)), None, "b", pads=[1] * 4)
    g.output(b, "y", (1, 1, 4, 5))
    return g.model()


def _run(model: onnx.ModelProto, **feeds: NDArray[np.generic]) -> list[NDArray[np.float32]]:
    """8-bit weights overflow in ONNX Runtime's INT8 products on a CPU without VNNI: products are float32 here."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if not any(t.data_type == onnx.TensorProto.UINT8 for t in model.graph.initializer):
        options.add_session_config_entry(*WITHOUT_INT8_PRODUCTS)
    return list(ort.InferenceSession(model.SerializeToString(), options).run(None, feeds))


_QUANTIZED_BYTES = """
import hashlib, numpy as np, onnx
from solo_export.graph import GraphBuilder
from solo_export.quantize import points, quantize
g = GraphBuilder("many")
x = g.input("x", onnx.TensorProto.FLOAT, (1, 1, 4, 5))
for number in range(8):
    x = g.op("Relu", g.conv(x, np.ones((1, 1, 1, 1)), None, f"layer{number}"))
g.output(x, "y", (1, 1, 4, 5))
model = g.model()
print(hashlib.sha256(quantize(model, {name: (0.0, 1.0) for name in points(model)}).SerializeToString()).hexdigest())
"""


def test_the_graph_does_not_depend_on_the_order_of_sets() -> None:
    """A bundle's version is a digest of its files, so the same export must give the same bytes."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", _QUANTIZED_BYTES], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("low", "high", "zero"), [(0.0, 25.5, 0), (-25.5, 0.0, 255), (-5.1, 20.4, 51), (3.0, 25.5, 0), (-25.5, -9.0, 255)]
)
def test_a_range_has_255_steps_and_contains_zero(low: float, high: float, zero: int) -> None:
    assert scale_and_zero(low, high) == (pytest.approx(0.1), zero)


@pytest.mark.parametrize(("low", "high"), [(0.0, 12.7), (-12.7, 0.0), (-12.7, 5.0), (-1.0, 12.7), (3.0, 12.7)])
def test_for_tensorrt_the_larger_side_of_a_range_decides_and_zero_is_zero(low: float, high: float) -> None:
    assert scale_and_zero(low, high, FOR_TENSORRT) == (pytest.approx(0.1), 0)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_an_empty_range_does_not_divide_by_zero(form: Form) -> None:
    assert scale_and_zero(0.0, 0.0, form)[0] > 0
    assert (weight_scales(np.zeros((2, 1, 3, 3))) > 0).all()


def test_weights_have_a_step_for_each_output_channel() -> None:
    weight = np.zeros((3, 2, 1, 1))
    weight[0, 1], weight[1, 0], weight[2, 0] = 63, -126, 0.63
    np.testing.assert_allclose(weight_scales(weight) * FOR_CPU.weight_limit, [63, 126, 0.63])


def test_the_rounded_tensor_after_a_convolution_is_the_activations_output() -> None:
    model = _two_convolutions()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    assert points(model) == ["x", relu.output[0], last.output[0]]


def test_values_on_the_steps_do_not_change() -> None:
    model = _two_convolutions()
    x = np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)
    names = points(model)
    ranges = dict(zip(names, ((0.0, 255.0), (0.0, 127.5), (0.0, 255.0)), strict=True))
    quantized = quantize(model, ranges)
    (plain,), (rounded,) = _run(model, x=x), _run(quantized, x=x)
    np.testing.assert_allclose(
        rounded, plain, atol=1.4 + 1e-3
    )  # nine taps, each 0.1 off its step, and half a step of the output
    kinds = {t.name: t.data_type for t in quantized.graph.initializer}
    assert kinds["a.weight.quantized"] == onnx.TensorProto.INT8
    assert kinds["conv_1.bias.quantized"] == onnx.TensorProto.INT32
    weights = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    assert weights["a.weight.quantized"].ravel().tolist() == [63, -63]
    assert weights["conv_1.bias.quantized"].tolist() == [round(0.4 * 63), -1]
    assert "a.weight" not in weights


def test_for_tensorrt_weights_take_eight_bits_and_bias_stays_as_it_is() -> None:
    model = _two_convolutions()
    ranges = dict(zip(points(model), ((0.0, 254.0), (0.0, 127.0), (0.0, 254.0)), strict=True))
    quantized = quantize(model, ranges, FOR_TENSORRT)
    weights = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    assert weights["a.weight.quantized"].ravel().tolist() == [127, -127]
    np.testing.assert_array_equal(weights["a.bias"], np.float32([0.4, -1.0]))
    x = np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)
    (plain,), (rounded,) = _run(model, x=x), _run(quantized, x=x)
    np.testing.assert_allclose(rounded, plain, atol=9 * 0.5 + 1 + 1e-3)  # nine taps, half a step each, and the output's


def test_the_forms_are_those_that_a_bundle_can_name() -> None:
    assert tuple(FORMS) == INT8_FORMS


def test_a_missing_range_is_an_error() -> None:
    with pytest.raises(KeyError):
        quantize(_two_convolutions(), {"x": (0.0, 1.0)})


def test_the_best_range_cuts_off_rare_values() -> None:
    rng = np.random.default_rng(0)
    common = rng.uniform(0, 1, 190_000).astype(np.float32)
    assert best_range(common) == pytest.approx((0.0, 1.0), abs=0.01)
    low, high = best_range(np.concatenate([common, np.float32([1.5])]))
    assert low == 0.0
    assert 0.95 < high < 1.4


def test_values_are_drawn_from_all_of_a_tensor() -> None:
    g = GraphBuilder("one")
    x = g.input("x", onnx.TensorProto.FLOAT, (1, 1, "h", "w"))
    g.output(g.conv(x, np.ones((1, 1, 1, 1)), None, "a"), "y", (1, 1, "h", "w"))
    calibrator = Calibrator(g.model())
    plane = np.zeros((1, 1, 300, 400), np.float32)
    plane[..., 200:] = 2.0
    outputs = calibrator.run({"x": plane})
    np.testing.assert_array_equal(outputs[0], plane)
    for low, high in calibrator.ranges().values():
        assert (low, high) == pytest.approx((0.0, 2.0), abs=0.05)


@pytest.fixture(scope="module", params=FORMS.values(), ids=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    chosen: Form = request.param
    return chosen


@pytest.fixture(scope="module")
def graphs(network: SoloNetwork, form: Form) -> tuple[Graphs, Graphs]:
    """A network's graphs, and the same in INT8, calibrated on the image that they are compared on."""
    plain = export_graphs(network)
    categories, masks = Calibrator(plain.categories, form), Calibrator(plain.masks, form)
    _, *levels = categories.run(_feeds())
    for level in levels:
        masks.run({"level": level})
    quantized = [quantize(plain.categories, categories.ranges(), form), quantize(plain.masks, masks.ranges(), form)]
    return plain, Graphs(plain.spec, *quantized, plain.kernels)


def _feeds() -> dict[str, NDArray[np.generic]]:
    return {"images": smooth_image(128, 160)[None], "image_hw": np.array([[120, 160]], np.int64)}


def test_a_quantized_network_gives_nearly_the_same_results(graphs: tuple[Graphs, Graphs]) -> None:
    plain, rounded = (_run(g.categories, **_feeds()) for g in graphs)
    for before, after in zip(plain[1:], rounded[1:], strict=True):
        assert np.abs(after - before).mean() < 0.06 * np.abs(before).mean()
    masks = [_run(g.masks, level=plain[1])[0] for g in graphs]
    assert np.abs(masks[1] - masks[0]).mean() < 0.1 * np.abs(masks[0]).mean()


def test_all_large_convolutions_are_quantized(graphs: tuple[Graphs, Graphs]) -> None:
    _, quantized = graphs
    for model in (quantized.categories, quantized.masks):
        floats = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 4}
        convolved = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input} & floats
        assert all("coordinates" in name or name.startswith("categories.") for name in convolved)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]


def test_zero_points_and_quantized_bias_are_for_cpus_only(graphs: tuple[Graphs, Graphs], form: Form) -> None:
    for model in (graphs[1].categories, graphs[1].masks):
        kinds = {
            (t.data_type, bool(numpy_helper.to_array(t).any())) for t in model.graph.initializer if ".zero" in t.name
        }
        whole = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT32}
        if form is FOR_TENSORRT:
            assert (kinds, whole) == ({(onnx.TensorProto.INT8, False)}, set())
        else:
            assert (onnx.TensorProto.UINT8, True) in kinds


def test_a_quantized_graph_keeps_its_inputs_outputs_and_batches(graphs: tuple[Graphs, Graphs]) -> None:
    plain, quantized = graphs
    assert plain.categories.graph.input == quantized.categories.graph.input
    assert plain.categories.graph.output == quantized.categories.graph.output
    one = _feeds()
    two = {name: np.concatenate([value, value]) for name, value in one.items()}
    np.testing.assert_allclose(
        _run(quantized.categories, **two)[0][1:], _run(quantized.categories, **one)[0], atol=1e-5
    )
