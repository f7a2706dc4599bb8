"""The compiled head against the bundle's own graphs."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from solo_export.half import halve
from solo_export.onnx import export_graphs
from solo_export.quantize import points, quantize
from solo_models.bundle import Bundle, BundleContent, BundleError, as_bundle
from solo_models.spec import Variant
from solo_server.backends.cpu.network import CompiledEngine, GraphEngine, open_network
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.errors import EngineFailure
from solo_server.pipeline.image import prepare
from support.images import smooth_image
from support.networks import bundle_content, tiny_network
from support.specs import deformable_spec, quick_spec

Engines = tuple[CompiledEngine, GraphEngine]


@cache
def _content(variant: Variant) -> BundleContent:
    return bundle_content(tiny_network(variant))


def _engines(bundle: Bundle) -> Engines:
    return CompiledEngine(bundle, OrtRuntime(1), Pool(2)), GraphEngine(bundle, OrtRuntime(1))


@pytest.fixture(scope="module")
def engines(variant: Variant) -> Engines:
    return _engines(as_bundle(_content(variant)))


def _outputs(
    bundle: Bundle, engines: Engines, size: tuple[int, int] = (96, 150)
) -> tuple[list[NDArray[np.float32]], ...]:
    """Scores and all mask features of both engines."""
    prepared = prepare(smooth_image(*size, seed=5), bundle.spec.preprocess)
    images, image_hw = prepared.pixels[None], np.array([prepared.geometry.resized_hw])
    found = []
    for engine in engines:
        output = engine.run(images, image_hw)[0]
        features = output.mask_features(range(len(bundle.spec.grids)))
        found.append([output.scores, *(feature for level in features for feature in level)])
    return tuple(found)


@pytest.mark.parametrize("size", [(96, 150), (150, 96), (101, 133), (300, 40)])
def test_the_compiled_head_returns_what_the_graphs_return(
    variant: Variant, engines: Engines, size: tuple[int, int]
) -> None:
    compiled, graphs = _outputs(as_bundle(_content(variant)), engines, size)
    np.testing.assert_allclose(compiled[0], graphs[0], atol=2e-5)
    for ours, theirs in zip(compiled[1:], graphs[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_weights_of_other_precisions_are_converted_to_float32(precision: str) -> None:
    """float16 towers lose little. INT8 graphs round activations too; the compiled head only rounds weights."""
    content = _content("decoupled")
    graphs = export_graphs(tiny_network("decoupled"))
    if precision == "fp16":
        categories, masks = halve(graphs.categories), halve(graphs.masks)
    else:
        categories, masks = (
            quantize(g, dict.fromkeys(points(g), (-9.0, 9.0))) for g in (graphs.categories, graphs.masks)
        )
    lossy = replace(
        content, categories=categories.SerializeToString(), masks=masks.SerializeToString(), precision=precision
    )
    exact = GraphEngine(as_bundle(content), OrtRuntime(1))
    prepared = prepare(smooth_image(96, 150), content.spec.preprocess)
    levels = exact.run(prepared.pixels[None], np.array([prepared.geometry.resized_hw]))[0].levels  # type: ignore[attr-defined]
    head = CompiledEngine(as_bundle(lossy), OrtRuntime(1), Pool(1))._head
    reference = CompiledEngine(as_bundle(content), OrtRuntime(1), Pool(1))._head
    limit = 0.02 if precision == "fp16" else 0.35
    for ours, theirs in zip(head.mask_features(levels), reference.mask_features(levels), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert 0 < np.abs(a - b).mean() < limit * np.abs(b).mean()


def test_equal_scores_survive_points_nms() -> None:
    """All cells are equal: none is below a neighbour, so all of them stay."""
    network = tiny_network("solo", quick_spec("solo"))
    with torch.no_grad():
        network.head.categories.weight.zero_()
        network.head.categories.bias.fill_(0.3)
    bundle = as_bundle(bundle_content(network))
    compiled, _ = _outputs(bundle, _engines(bundle))
    np.testing.assert_allclose(compiled[0], 1 / (1 + np.exp(-0.3)), rtol=1e-6)


def test_no_levels_give_no_mask_features() -> None:
    bundle = as_bundle(_content("solo"))
    prepared = prepare(smooth_image(96, 150), bundle.spec.preprocess)
    engine = CompiledEngine(bundle, OrtRuntime(1), Pool(1))
    output = engine.run(prepared.pixels[None], np.array([prepared.geometry.resized_hw]))[0]
    assert list(output.mask_features([])) == []


def test_a_head_that_cannot_be_compiled_runs_as_a_graph() -> None:
    deformable = as_bundle(bundle_content(tiny_network("decoupled_light", deformable_spec("decoupled_light"))))
    assert isinstance(open_network(deformable, OrtRuntime(1), Pool(1)), GraphEngine)
    with pytest.raises(BundleError, match="cannot be compiled"):
        open_network(deformable, OrtRuntime(1), Pool(1), "compiled")
    odd = replace(quick_spec("solo"), head_channels=36, norm_groups=4)
    narrow = as_bundle(bundle_content(tiny_network("solo", odd)))
    assert isinstance(open_network(narrow, OrtRuntime(1), Pool(1)), GraphEngine)


def test_a_head_whose_weights_have_other_names_runs_as_a_graph_or_the_error_names_one() -> None:
    """As from another exporter: valid graphs, other names."""
    content = _content("solo")
    renamed = content.categories.replace(b"category_tower.0.norm", b"categoryXtower.0.norm")
    bundle = as_bundle(replace(content, categories=renamed))
    with pytest.raises(BundleError, match=r"category_tower\.0\.norm\.weight"):
        open_network(bundle, OrtRuntime(1), Pool(1), "compiled")
    assert isinstance(open_network(bundle, OrtRuntime(1), Pool(1)), GraphEngine)


def test_wrong_shapes_are_refused_before_they_reach_a_kernel() -> None:
    """Kernels do not check indices."""
    bundle = as_bundle(_content("solo"))
    wide = replace(bundle, spec=replace(bundle.spec, class_names=("a", "b")))
    with pytest.raises(
        BundleError, match=r"categories\.weight is \(3, 32, 3, 3\), the specification says \(2, 32, 3, 3\)"
    ):
        CompiledEngine(wide, OrtRuntime(1), Pool(1))
    head = CompiledEngine(bundle, OrtRuntime(1), Pool(1))._head
    with pytest.raises(EngineFailure, match="16 channels expected"):
        head.scores([np.zeros((24, 8, 8), np.float32)] * 5)
    with pytest.raises(EngineFailure, match="16 channels expected"):
        head.mask_features([np.zeros((16, 8), np.float32)])
