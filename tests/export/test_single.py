"""One ONNX file with post-processing inside: a network's instances in plain ONNX Runtime, in every precision."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from solo_export.graph import GraphBuilder, InlineError
from solo_export.onnx import categories_model, export_graphs, mask_kernels, masks_model
from solo_export.single import SingleFileError, single_file_model
from solo_models.bundle import write_bundle
from solo_models.network import SoloNetwork
from solo_server.pipeline.image import prepare
from solo_server.pipeline.pipeline import Decoded, Pipeline
from solo_server.types import Instance, PreparedImage, Query
from support.images import encoded, smooth_image
from support.networks import bundle_content, tiny_network
from support.paths import ROOT
from support.single_file_model import ask, check_same, load
from support.specs import deformable_spec, quick_spec

EXAMPLE = ROOT / "docs" / "examples" / "single_file.py"
SIZES = [(96, 150), (150, 96), (101, 133), (300, 40)]


@pytest.fixture(scope="module")
def pipeline(bundle_path: Path) -> Pipeline:
    return Pipeline.open(bundle_path, threads=1)


@pytest.fixture(scope="module")
def model(network: SoloNetwork) -> onnx.ModelProto:
    preprocess = json.dumps(asdict(network.spec.preprocess))
    return _compose(network, class_names=json.dumps(network.spec.class_names), preprocess=preprocess, note="für alle")


@pytest.fixture(scope="module")
def session(model: onnx.ModelProto) -> ort.InferenceSession:
    return load(model)


def _compose(network: SoloNetwork, **metadata: str) -> onnx.ModelProto:
    graphs = export_graphs(network)
    return single_file_model(network.spec, graphs.categories, graphs.masks, graphs.kernels, metadata)


def _segment(pipeline: Pipeline, prepared: PreparedImage) -> tuple[Instance, ...]:
    blank = np.zeros((1, 1, 3), np.uint8)
    return pipeline.segment_decoded(Decoded(prepared, blank, 0, 0), Query()).instances


@pytest.mark.parametrize("size", SIZES)
def test_instances_are_those_of_the_bundle(
    pipeline: Pipeline, session: ort.InferenceSession, size: tuple[int, int]
) -> None:
    prepared = prepare(smooth_image(*size, seed=size[0]), pipeline.bundle.spec.preprocess)
    expected = _segment(pipeline, prepared)
    assert len(expected) >= 20
    check_same(ask(session, prepared.pixels, prepared.geometry), expected, size)


@pytest.mark.parametrize("size", [(96, 150), (150, 96)])
def test_masks_may_have_the_size_of_the_network_input(
    pipeline: Pipeline, session: ort.InferenceSession, size: tuple[int, int]
) -> None:
    prepared = prepare(smooth_image(*size), pipeline.bundle.spec.preprocess)
    resized_hw = prepared.geometry.resized_hw
    here = replace(prepared, geometry=replace(prepared.geometry, original_hw=resized_hw))
    check_same(ask(session, here.pixels, here.geometry), _segment(pipeline, here), resized_hw)


def test_a_deformable_network_gives_the_results_of_its_bundle(tmp_path: Path) -> None:
    network = tiny_network("decoupled_light", deformable_spec("decoupled_light"))
    pipeline = Pipeline.open(write_bundle(tmp_path / "bundle", bundle_content(network)), threads=1)
    prepared = prepare(smooth_image(96, 150), network.spec.preprocess)
    expected = _segment(pipeline, prepared)
    assert len(expected) >= 20
    check_same(ask(load(_compose(network)), prepared.pixels, prepared.geometry), expected, (96, 150))


class _Calibration(CalibrationDataReader):
    def __init__(self, feeds: dict[str, np.ndarray]) -> None:
        self._feeds = iter([feeds])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _quantized(graph: onnx.ModelProto, feeds: dict[str, np.ndarray], folder: Path) -> onnx.ModelProto:
    """With 7-bit weights: 8-bit ones overflow on CPUs without VNNI, differently in each form of a convolution."""
    onnx.save(graph, folder / "float.onnx")
    how = {"per_channel": True, "reduce_range": True, "op_types_to_quantize": ["Conv"]}
    quantize_static(folder / "float.onnx", folder / "int8.onnx", _Calibration(feeds), **how)
    return onnx.load(folder / "int8.onnx")


def test_int8_graphs_give_the_results_of_their_bundle(tmp_path: Path) -> None:
    network = tiny_network("decoupled", quick_spec("decoupled"))
    prepared = prepare(smooth_image(96, 150), network.spec.preprocess)
    feeds = {"images": prepared.pixels[None], "image_hw": np.array([prepared.geometry.resized_hw])}
    graph = categories_model(network)
    level = load(graph).run(["level_1"], feeds)[0]
    categories = _quantized(graph, feeds, tmp_path)
    masks = _quantized(masks_model(network), {"level": level}, tmp_path)
    composed = single_file_model(network.spec, categories, masks, mask_kernels(network), {})
    assert TensorProto.INT8 in {tensor.data_type for tensor in composed.graph.initializer}
    graphs = {"categories": categories.SerializeToString(), "masks": masks.SerializeToString()}
    bundle = write_bundle(tmp_path / "bundle", replace(bundle_content(network), **graphs))
    expected = _segment(Pipeline.open(bundle, threads=1), prepared)
    assert len(expected) >= 20
    check_same(ask(load(composed), prepared.pixels, prepared.geometry), expected, (96, 150))


@pytest.mark.parametrize("half", [("categories", "masks"), ("categories",), ("masks",)])
def test_float16_graphs_give_nearly_equal_results(half: tuple[str, ...]) -> None:
    """ONNX Runtime's converter makes level features float16 too, and leaves nodes in an order that is none."""
    network = tiny_network("decoupled", quick_spec("decoupled"))
    graphs = {"categories": categories_model(network), "masks": masks_model(network)}
    prepared = prepare(smooth_image(96, 150), network.spec.preprocess)
    answers = []
    for converted in ((), half):
        kept = {"categories": ["scores"], "masks": []}
        mixed = {
            n: convert_float_to_float16(g, keep_io_types=kept[n]) if n in converted else g for n, g in graphs.items()
        }
        composed = single_file_model(network.spec, **mixed, kernels=mask_kernels(network), metadata={})
        answers.append(ask(load(composed), prepared.pixels, prepared.geometry))
    assert answers[1].scores.dtype == np.float32
    np.testing.assert_allclose(answers[1].scores[:20], answers[0].scores[:20], atol=0.01)
    assert (answers[1].masks[:5] != answers[0].masks[:5]).mean() < 0.01


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for attribute in (a for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH):
        yield from _graphs(attribute.g)


def test_it_is_plain_onnx(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert (model.ir_version, len(model.functions)) == (8, 0)
    assert {node.domain for graph in _graphs(model.graph) for node in graph.node} == {""}


def test_inputs_and_outputs_are_as_documented(session: ort.InferenceSession) -> None:
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("images", "tensor(uint8)", [1, "height", "width", 3]),
        ("image_hw", "tensor(int64)", [1, 2]),
        ("output_hw", "tensor(int64)", [2]),
    ]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("boxes", "tensor(float)", ["instances", 4]),
        ("scores", "tensor(float)", ["instances"]),
        ("labels", "tensor(int64)", ["instances"]),
        ("masks", "tensor(uint8)", ["instances", "output_height", "output_width"]),
    ]


def test_weights_are_stored_once(model: onnx.ModelProto, bundle_path: Path) -> None:
    bundle_bytes = sum((bundle_path / name).stat().st_size for name in ("categories.onnx", "masks.onnx", "kernels.npz"))
    assert model.ByteSize() < 1.01 * bundle_bytes
    assert all(len(graph.initializer) == 0 for graph in _graphs(model.graph) if graph is not model.graph)


def test_metadata_arrives(session: ort.InferenceSession) -> None:
    metadata = session.get_modelmeta().custom_metadata_map
    assert sorted(metadata) == ["class_names", "note", "preprocess"]
    assert json.loads(metadata["class_names"]) == ["cat", "dog", "traffic light"]
    assert metadata["note"] == "für alle"


def test_a_composed_model_can_be_part_of_another(network: SoloNetwork, model: onnx.ModelProto) -> None:
    """Names inside branches and bodies are changed with the others."""
    g = GraphBuilder("twice")
    kinds = (("images", TensorProto.UINT8, [1, "h", "w", 3]), ("image_hw", TensorProto.INT64, [1, 2]))
    inputs = {name: g.input(name, kind, shape) for name, kind, shape in kinds}
    inputs["output_hw"] = g.input("output_hw", TensorProto.INT64, [2])
    for i in (0, 1):
        outputs = g.inline(model, f"copy_{i}/", "weights/", inputs)
        g.output(outputs[1], f"scores_{i}", ["n"])
    twice = g.model()
    assert twice.ByteSize() < 1.05 * model.ByteSize()
    prepared = prepare(smooth_image(96, 150), network.spec.preprocess)
    hw = {"image_hw": np.array([prepared.geometry.resized_hw]), "output_hw": np.array([96, 150])}
    first, second = load(twice).run(None, {"images": prepared.pixels[None], **hw})
    assert len(first) >= 20
    np.testing.assert_array_equal(first, second)


def test_graphs_and_kernels_of_another_network_are_refused(network: SoloNetwork) -> None:
    spec, categories, masks, kernels = (
        network.spec, categories_model(network), masks_model(network), mask_kernels(network),
    )  # fmt: skip
    with pytest.raises(SingleFileError, match="categories: inputs must be"):
        single_file_model(spec, masks, masks, kernels, {})
    fewer = replace(spec, grids=spec.grids[:4], fpn_strides=spec.fpn_strides[:4], strides=spec.strides[:4])
    with pytest.raises(SingleFileError, match="categories: outputs must be"):
        single_file_model(fewer, categories, masks, kernels, {})
    with pytest.raises(SingleFileError, match="kernels: level4"):
        single_file_model(spec, categories, masks, {k: v for k, v in kernels.items() if "4" not in k}, {})
    other = replace(spec, variant="solo" if spec.is_decoupled else "decoupled_light")
    with pytest.raises(SingleFileError):
        single_file_model(other, categories, masks, kernels, {})


def _identity(opset: int = 17, domain: str = "", reads: str = "x") -> onnx.ModelProto:
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node("Identity", [reads], ["y"], domain=domain)
    graph = helper.make_graph([node], "foreign", floats[:1], floats[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize(
    ("model", "named"),
    [(_identity(16), "opset"), (_identity(domain="ours"), "ours"), (_identity(reads="y"), "cycle")],
)
def test_a_graph_that_cannot_be_copied_is_refused_with_the_reason(model: onnx.ModelProto, named: str) -> None:
    g = GraphBuilder("whole")
    with pytest.raises(InlineError, match=named):
        g.inline(model, "part/", "part/", {"x": g.input("x", TensorProto.FLOAT, [1])})


def test_the_example_prints_what_the_server_finds(pipeline: Pipeline, model: onnx.ModelProto, tmp_path: Path) -> None:
    pixels = smooth_image(101, 133)
    body = encoded(pixels)
    (tmp_path / "photo.png").write_bytes(body)
    onnx.save(model, tmp_path / "model.onnx")
    command = [sys.executable, "-I", "-W", "error", EXAMPLE, "model.onnx", "photo.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    names, expected = pipeline.bundle.spec.class_names, pipeline.segment(body).instances
    boxes = [f"{names[i.class_id]} {i.score:.3f} box {list(i.box_xywh)}" for i in expected]
    assert [line.split(" area ")[0] for line in done.stdout.splitlines()] == boxes


def test_the_example_needs_nothing_of_ours() -> None:
    nodes = list(ast.walk(ast.parse(EXAMPLE.read_text())))
    imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"json", "sys", "cv2", "numpy", "onnxruntime"}
    assert not any(isinstance(node, ast.ImportFrom) for node in nodes)


def test_the_example_is_the_one_in_the_documentation() -> None:
    shown = (EXAMPLE.parents[1] / "single-file.md").read_text()
    assert f"```python\n{EXAMPLE.read_text().replace('  # noqa: T201', '')}```" in shown
