"""The OpenVINO engine returns what ONNX Runtime returns, for all variants, batches and concurrent callers."""

import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray
from solo_export.calibrate import Calibrator
from solo_export.onnx import categories_model, masks_model
from solo_export.quantize import quantize
from solo_models.bundle import CATEGORIES, MASKS, Bundle, BundleError, read_bundle
from solo_models.network import SoloNetwork
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.engine import Engine
from solo_server.backends.cpu.network import GraphEngine, open_network
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.postprocess import find_candidates
from solo_server.backends.cpu.runtimes import openvino as openvino_engine
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.backends.cpu.runtimes.openvino import OpenVinoRuntime
from solo_server.errors import EngineFailure, SettingsError
from solo_server.pipeline.image import prepare
from solo_server.pipeline.pipeline import Decoded, Pipeline
from solo_server.system.processor import has_bf16
from solo_server.types import PreparedImage, Query
from support.images import smooth_image
from support.networks import tiny_network

SIZES = [(96, 150), (150, 96), (101, 133)]
HAS_BF16 = has_bf16(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return read_bundle(bundle_path)


@pytest.fixture(scope="module")
def openvino_pipeline(bundle: Bundle) -> Pipeline:
    return Pipeline(bundle, CpuBackend(bundle, GraphEngine(bundle, OpenVinoRuntime(threads=1))))


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Pipeline:
    return Pipeline(bundle, CpuBackend(bundle, GraphEngine(bundle, OrtRuntime(1))))


@pytest.fixture(scope="module")
def vanilla(solo_bundle: Path) -> Bundle:
    """For what OpenVINO does to any graph, whichever variant it is of."""
    return read_bundle(solo_bundle)


@pytest.fixture(scope="module")
def vanilla_network() -> SoloNetwork:
    return tiny_network("solo")


def _prepared(pipeline: Pipeline, size: tuple[int, int], seed: int = 0) -> PreparedImage:
    return prepare(smooth_image(*size, seed), pipeline.bundle.spec.preprocess)


def _relative(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == np.float32
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("size", SIZES)
def test_candidates_scores_and_features_are_onnx_runtimes(
    openvino_pipeline: Pipeline, reference: Pipeline, size: tuple[int, int]
) -> None:
    prepared = _prepared(openvino_pipeline, size)
    found, expected = openvino_pipeline.infer([prepared])[0], reference.infer([prepared])[0]
    settings = openvino_pipeline.bundle.spec.postprocess
    ours, theirs = find_candidates(found.scores, settings), find_candidates(expected.scores, settings)
    assert len(ours.cells) > 20
    assert np.array_equal(ours.cells, theirs.cells)
    assert np.array_equal(ours.labels, theirs.labels)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
    for level in range(len(openvino_pipeline.bundle.spec.grids)):
        parts = list(zip(found.mask_features([level])[0], expected.mask_features([level])[0], strict=True))
        assert len(parts) == (2 if openvino_pipeline.bundle.spec.variant == "decoupled" else 1)
        assert max(_relative(a, b) for a, b in parts) < 1e-4


def test_instances_are_onnx_runtimes(openvino_pipeline: Pipeline, reference: Pipeline) -> None:
    decoded = Decoded(_prepared(openvino_pipeline, (96, 150)), smooth_image(96, 150), 0, 0)
    found, expected = (p.segment_decoded(decoded, Query()).instances for p in (openvino_pipeline, reference))
    assert [i.class_id for i in found] == [i.class_id for i in expected]
    np.testing.assert_allclose([i.score for i in found], [i.score for i in expected], atol=1e-4)
    np.testing.assert_allclose([i.area for i in found], [i.area for i in expected], rtol=0.01, atol=3)


def test_each_image_of_a_batch_has_its_own_output(openvino_pipeline: Pipeline) -> None:
    images = [_prepared(openvino_pipeline, (96, 150), seed) for seed in range(3)]
    together = openvino_pipeline.infer(images)
    alone = [openvino_pipeline.infer([each])[0] for each in images]
    for batched, single in zip(together, alone, strict=True):
        np.testing.assert_allclose(batched.scores, single.scores, atol=1e-5)
        assert _relative(batched.mask_features([0])[0][0], single.mask_features([0])[0][0]) < 1e-4
    assert np.abs(together[0].scores - together[1].scores).max() > 0.01


def test_outputs_of_concurrent_callers_are_not_mixed_up(openvino_pipeline: Pipeline) -> None:
    images = [_prepared(openvino_pipeline, SIZES[seed % 3], seed) for seed in range(6)]
    expected = [openvino_pipeline.infer([each])[0] for each in images]
    features = [output.mask_features([1])[0][0] for output in expected]

    def infer_one(turn: int) -> None:
        index = turn % len(images)
        output = openvino_pipeline.infer([images[index]])[0]
        np.testing.assert_allclose(output.scores, expected[index].scores, atol=1e-5)
        assert _relative(output.mask_features([1])[0][0], features[index]) < 1e-4

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(infer_one, range(12)))


def test_an_output_does_not_change_when_the_next_image_runs(openvino_pipeline: Pipeline) -> None:
    first = openvino_pipeline.infer([_prepared(openvino_pipeline, (96, 150), 1)])[0]
    features = first.mask_features([0])[0][0]
    kept, kept_features = first.scores.copy(), features.copy()
    openvino_pipeline.infer([_prepared(openvino_pipeline, (96, 150), 2)])[0].mask_features([0])
    assert np.array_equal(first.scores, kept)
    assert np.array_equal(features, kept_features)


def test_no_instances_give_an_empty_tuple(openvino_pipeline: Pipeline) -> None:
    decoded = Decoded(_prepared(openvino_pipeline, (96, 150)), smooth_image(96, 150), 0, 0)
    assert openvino_pipeline.segment_decoded(decoded, Query(score_threshold=1.0)).instances == ()


def test_the_description_has_version_device_and_precision(openvino_pipeline: Pipeline) -> None:
    version = openvino.__version__.split("-")[0]
    assert openvino_pipeline.backend.engine.description == f"openvino {version} cpu, fp32"


def test_quantized_convolutions_run_in_int8(vanilla: Bundle, vanilla_network: SoloNetwork) -> None:
    prepared = prepare(smooth_image(96, 150), vanilla.spec.preprocess)
    categories, masks = categories_model(vanilla_network), masks_model(vanilla_network)
    calibrators = Calibrator(categories), Calibrator(masks)
    image_hw = np.array([prepared.geometry.resized_hw], np.int64)
    _, *levels = calibrators[0].run({"images": prepared.pixels[None], "image_hw": image_hw})
    calibrators[1].run({"level": levels[0]})
    files = {
        CATEGORIES: quantize(categories, calibrators[0].ranges()).SerializeToString(),
        MASKS: quantize(masks, calibrators[1].ranges()).SerializeToString(),
    }
    int8 = replace(vanilla, precision="int8", files={**vanilla.files, **files})
    engine = GraphEngine(int8, OpenVinoRuntime("int8", 1))
    assert ", int8 in " in engine.description
    assert "else fp32" in engine.description
    exact = GraphEngine(vanilla, OrtRuntime(1)).run(prepared.pixels[None], image_hw)[0].scores

    def mean_error(engine: Engine) -> float:
        return float(np.abs(engine.run(prepared.pixels[None], image_hw)[0].scores - exact).mean())

    # both round the same numbers, but in another order
    assert mean_error(engine) < 1.5 * mean_error(GraphEngine(int8, OrtRuntime(1)))


def test_the_error_names_the_graph_that_does_not_load(vanilla: Bundle) -> None:
    broken = replace(vanilla, files={**vanilla.files, MASKS: b"no graph"})
    with pytest.raises(BundleError, match=r"^masks\.onnx: OpenVINO cannot load it \(.+\)$"):
        GraphEngine(broken, OpenVinoRuntime(threads=1))


def test_a_failed_run_is_an_engine_failure_and_the_next_run_works(openvino_pipeline: Pipeline) -> None:
    prepared = _prepared(openvino_pipeline, (96, 150))
    expected = openvino_pipeline.infer([prepared])[0].scores
    with pytest.raises(EngineFailure, match="OpenVINO"):
        openvino_pipeline.backend.engine.run(np.zeros((1, 96, 160, 4), np.uint8), np.array([[96, 150]], np.int64))
    assert np.array_equal(openvino_pipeline.infer([prepared])[0].scores, expected)


def test_bf16_is_refused_where_openvino_offers_none() -> None:
    with pytest.raises(SettingsError) as refused:
        openvino_engine.check_bf16(["FP32", "INT8", "BIN"], "Old Processor")
    assert str(refused.value) == (
        "precision bf16: this processor (Old Processor) has no bf16 arithmetic (avx512_bf16, amx_bf16); OpenVINO offers FP32, "
        "INT8, BIN on it; leave the precision out"
    )


def test_bf16_is_accepted_where_openvino_offers_it() -> None:
    openvino_engine.check_bf16(["FP32", "INT8", "BF16"], "New Processor")


def test_the_runtime_asks_openvino_whether_this_processor_has_bf16() -> None:
    if HAS_BF16:
        OpenVinoRuntime("bf16", 1)
    else:
        with pytest.raises(SettingsError, match="has no bf16 arithmetic"):
            OpenVinoRuntime("bf16", 1)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({"bf16": 9}, "bf16"),
        ({"bf16": 8, "fp32": 1}, "bf16 in 8 of 9 convolutions, else fp32"),
        ({"fp32": 6, "int8": 103}, "int8 in 103 of 109 convolutions, else fp32"),
        ({}, "fp32"),
    ],
)
def test_the_description_counts_convolutions_by_precision(counts: dict[str, int], text: str) -> None:
    assert openvino_engine.precisions_text(Counter(counts)) == text


def test_the_description_has_the_precision_that_is_executed(vanilla: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check, OpenVINO computes in float32 on a processor without bf16; the description shows it."""
    monkeypatch.setattr(openvino_engine, "check_bf16", lambda capabilities, name: None)
    description = GraphEngine(vanilla, OpenVinoRuntime("bf16", 1)).description
    assert re.search(r" cpu, (fp32|bf16)( in \d+ of \d+ convolutions, else fp32)?$", description)
    assert ("bf16" in description) is HAS_BF16


@pytest.mark.skipif(not HAS_BF16, reason="bf16 arithmetic: this processor has none (avx512_bf16, amx_bf16)")
def test_bf16_scores_differ_from_float32_as_much_as_torchs(vanilla: Bundle, vanilla_network: SoloNetwork) -> None:
    prepared = prepare(smooth_image(96, 150), vanilla.spec.preprocess)
    image_hw = np.array([prepared.geometry.resized_hw], np.int64)
    images = torch.from_numpy(prepared.pixels[None])
    with torch.no_grad():
        exact = vanilla_network(images, torch.from_numpy(image_hw))[0][0].numpy()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = vanilla_network(images, torch.from_numpy(image_hw))[0][0].float().numpy()
    found = GraphEngine(vanilla, OpenVinoRuntime("bf16", 1)).run(prepared.pixels[None], image_hw)[0].scores
    yardstick = float(np.abs(rounded - exact).mean())  # 0.002 to 0.015 for these networks
    assert 0 < np.abs(found - exact).mean() < 3 * yardstick + 0.02


def test_loading_the_engine_sends_no_telemetry(tmp_path: Path) -> None:
    code = (
        "import sys, solo_server.backends.cpu.runtimes.openvino\n"
        "print([m for m in sys.modules if m.startswith('openvino_telemetry.')])"
    )
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_the_compiled_head_works_with_openvino(vanilla: Bundle) -> None:
    engine = GraphEngine(vanilla, OpenVinoRuntime(threads=1))
    compiled = open_network(vanilla, OpenVinoRuntime(threads=1), Pool(1), "compiled")
    assert compiled.description == f"{engine.description}, compiled head"
    prepared = prepare(smooth_image(96, 150), vanilla.spec.preprocess)
    image_hw = np.array([prepared.geometry.resized_hw])
    found, expected = (one.run(prepared.pixels[None], image_hw)[0] for one in (compiled, engine))
    np.testing.assert_allclose(found.scores, expected.scores, atol=5e-5)
    assert _relative(found.mask_features([2])[0][0], expected.mask_features([2])[0][0]) < 1e-3
