"""Convolutions and towers on our kernels against torch, and the compiled head against the bundle's own graphs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from solo_export.half import halve
from solo_export.onnx import export_graphs
from solo_export.quantize import points, quantize
from solo_models.bundle import Bundle, BundleError, as_bundle
from solo_models.network import SoloNetwork
from solo_server.backends.cpu.kernels.winograd import transform_weights
from solo_server.backends.cpu.network import CompiledEngine, GraphEngine, open_network
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.backends.cpu.towers import LOWEST, Affine, Convolution, Layer, Maps, Tower, tile_table
from solo_server.errors import EngineFailure
from solo_server.pipeline.image import prepare
from support.images import smooth_image
from support.networks import bundle_content, tiny_network
from support.specs import deformable_spec, tiny_spec
from torch.nn import functional as F

SIZES = ((13, 9), (4, 4), (1, 7), (8, 12), (2, 1))


def _maps(channels: int, seed: int = 0) -> Maps:
    rng = np.random.default_rng(seed)
    count = sum(h * w for h, w in SIZES)
    return Maps(rng.standard_normal(count * channels).astype(np.float32), SIZES, channels)


def _torch(level: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(level.copy()).permute(2, 0, 1)[None].double()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 16), (24, 8), (16, 5), (11, 8)])
def test_a_convolution_is_torchs_at_every_size(inputs: int, outputs: int, threads: int) -> None:
    rng = np.random.default_rng(inputs)
    weight = rng.standard_normal((outputs, inputs, 3, 3)) / 10
    maps = _maps(-(-inputs // 8) * 8)
    plain = Affine(np.ones((5, maps.channels), np.float32), np.zeros((5, maps.channels), np.float32), LOWEST)
    found, sums, squares = Convolution(weight, Pool(threads)).run(maps, plain)
    for i in range(len(SIZES)):
        expected = F.conv2d(_torch(maps.level(i)[:, :, :inputs]), torch.from_numpy(weight), padding=1)[0].permute(
            1, 2, 0
        )
        np.testing.assert_allclose(found.level(i)[:, :, :outputs], expected, atol=1e-5)
        np.testing.assert_allclose(sums[i, :outputs], expected.sum((0, 1)), atol=1e-3)
        np.testing.assert_allclose(squares[i, :outputs], expected.square().sum((0, 1)), atol=1e-3)


def test_a_convolution_reads_its_input_scaled_shifted_and_cut_and_zeros_outside() -> None:
    rng = np.random.default_rng(1)
    weight, maps = rng.standard_normal((8, 8, 3, 3)) / 10, _maps(8)
    scale, shift = rng.standard_normal((2, 5, 8)).astype(np.float32)
    found, _, _ = Convolution(weight, Pool(1)).run(maps, Affine(scale, shift + 1, np.float32(0)))
    for i in range(len(SIZES)):
        before = np.maximum(maps.level(i) * scale[i] + shift[i] + 1, 0)
        expected = F.conv2d(_torch(before), torch.from_numpy(weight), padding=1)[0].permute(1, 2, 0)
        np.testing.assert_allclose(found.level(i), expected, atol=1e-5)


def test_rounding_is_of_the_order_of_a_plain_convolution() -> None:
    """The transforms of other interpolation points lose ten times as much."""
    rng = np.random.default_rng(2)
    maps, weight = _maps(64), rng.standard_normal((64, 64, 3, 3)) / 24
    plain = Affine(np.ones((5, 64), np.float32), np.zeros((5, 64), np.float32), LOWEST)
    found, _, _ = Convolution(weight, Pool(1)).run(maps, plain)
    exact = F.conv2d(_torch(maps.level(0)), torch.from_numpy(weight), padding=1)
    single = F.conv2d(_torch(maps.level(0)).float(), torch.from_numpy(weight).float(), padding=1)
    ours = torch.from_numpy(found.level(0).copy()).permute(2, 0, 1)[None]
    assert (ours - exact).square().mean().sqrt() < 4 * (single - exact).square().mean().sqrt()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_tower_is_torchs(threads: int) -> None:
    rng = np.random.default_rng(3)
    layers = [
        Layer(rng.standard_normal((16, inputs, 3, 3)) / 8, rng.uniform(0.6, 1.4, 16), rng.standard_normal(16) / 5)
        for inputs in (24, 16, 16)
    ]
    maps = _maps(24)
    found = Tower(layers, 4, Pool(threads)).run(maps)
    for i in range(len(SIZES)):
        x = _torch(maps.level(i))
        for layer in layers:
            x = F.conv2d(x, torch.from_numpy(layer.weight), padding=1)
            x = F.relu(F.group_norm(x, 4, torch.from_numpy(layer.gamma), torch.from_numpy(layer.beta)))
        np.testing.assert_allclose(found.level(i), x[0].permute(1, 2, 0), atol=2e-4)


def test_a_tower_does_not_change_its_input_and_repeats_itself() -> None:
    maps = _maps(8)
    before = maps.flat.copy()
    tower = Tower([Layer(np.ones((8, 8, 3, 3)), np.ones(8), np.zeros(8))], 2, Pool(2))
    first, second = tower.run(maps), tower.run(maps)
    np.testing.assert_array_equal(maps.flat, before)
    np.testing.assert_array_equal(first.flat, second.flat)


def test_tiles_cover_every_pixel_once() -> None:
    seen = [np.zeros(size, int) for size in SIZES]
    starts = np.cumsum([0, *(h * w for h, w in SIZES)])
    for start, height, width, row, column, level in tile_table(SIZES):
        assert (height, width, start) == (*SIZES[level], starts[level])
        seen[level][row : row + 4, column : column + 4] += 1
    assert all((level == 1).all() for level in seen)


def test_transformed_weights_of_a_centre_tap_reproduce_the_input() -> None:
    weight = np.zeros((8, 8, 3, 3))
    weight[range(8), range(8), 1, 1] = 1
    assert transform_weights(weight).shape == (36, 8, 8)
    maps = _maps(8)
    plain = Affine(np.ones((5, 8), np.float32), np.zeros((5, 8), np.float32), LOWEST)
    np.testing.assert_allclose(Convolution(weight, Pool(1)).run(maps, plain)[0].flat, maps.flat, atol=2e-6)


def _outputs(bundle: Bundle, size: tuple[int, int] = (96, 150)) -> tuple[list[NDArray[np.float32]], ...]:
    """Scores and all mask features of both engines."""
    prepared = prepare(smooth_image(*size, seed=5), bundle.spec.preprocess)
    images, image_hw = prepared.pixels[None], np.array([prepared.geometry.resized_hw])
    found = []
    for engine in (CompiledEngine(bundle, OrtRuntime(1), Pool(2)), GraphEngine(bundle, OrtRuntime(1))):
        output = engine.run(images, image_hw)[0]
        features = output.mask_features(range(len(bundle.spec.grids)))
        found.append([output.scores, *(feature for level in features for feature in level)])
    return tuple(found)


@pytest.mark.parametrize("size", [(96, 150), (150, 96), (101, 133), (300, 40)])
def test_the_compiled_head_answers_as_the_graphs_do(network: SoloNetwork, size: tuple[int, int]) -> None:
    compiled, graphs = _outputs(as_bundle(bundle_content(network)), size)
    np.testing.assert_allclose(compiled[0], graphs[0], atol=2e-5)
    for ours, theirs in zip(compiled[1:], graphs[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_weights_of_other_precisions_are_read_back(precision: str) -> None:
    """float16 towers lose little; INT8 ones round activations too, the compiled head only has rounded weights."""
    content = bundle_content(tiny_network("decoupled"))
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


def test_scores_of_ties_survive_points_nms() -> None:
    """All cells equal: none is below a neighbour, so that all of them stay."""
    network = tiny_network("solo")
    with torch.no_grad():
        network.head.categories.weight.zero_()
        network.head.categories.bias.fill_(0.3)
    compiled, _ = _outputs(as_bundle(bundle_content(network)))
    np.testing.assert_allclose(compiled[0], 1 / (1 + np.exp(-0.3)), rtol=1e-6)


def test_no_levels_need_no_towers() -> None:
    bundle = as_bundle(bundle_content(tiny_network("solo")))
    prepared = prepare(smooth_image(96, 150), bundle.spec.preprocess)
    engine = CompiledEngine(bundle, OrtRuntime(1), Pool(1))
    output = engine.run(prepared.pixels[None], np.array([prepared.geometry.resized_hw]))[0]
    assert list(output.mask_features([])) == []


def test_networks_that_cannot_be_compiled_run_as_graphs() -> None:
    deformable = as_bundle(bundle_content(tiny_network("decoupled_light", deformable_spec("decoupled_light"))))
    assert isinstance(open_network(deformable, OrtRuntime(1), Pool(1)), GraphEngine)
    with pytest.raises(BundleError, match="cannot be compiled"):
        open_network(deformable, OrtRuntime(1), Pool(1), "compiled")
    odd = replace(tiny_spec("solo"), head_channels=36, norm_groups=4)
    narrow = as_bundle(bundle_content(tiny_network("solo", odd)))
    assert isinstance(open_network(narrow, OrtRuntime(1), Pool(1)), GraphEngine)


def test_a_head_whose_weights_have_other_names_runs_as_graphs_or_is_refused_by_name() -> None:
    """A bundle of some other exporter: valid graphs, other names."""
    content = bundle_content(tiny_network("solo"))
    renamed = content.categories.replace(b"category_tower.0.norm", b"categoryXtower.0.norm")
    bundle = as_bundle(replace(content, categories=renamed))
    with pytest.raises(BundleError, match=r"category_tower\.0\.norm\.weight"):
        open_network(bundle, OrtRuntime(1), Pool(1), "compiled")
    assert isinstance(open_network(bundle, OrtRuntime(1), Pool(1)), GraphEngine)


def test_shapes_that_kernels_would_run_beyond_are_refused() -> None:
    """Kernels do not check indices: what does not fit together must never reach them."""
    bundle = as_bundle(bundle_content(tiny_network("solo")))
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
    with pytest.raises(ValueError, match="maps of 8 channels for a convolution of 16"):
        Convolution(np.zeros((8, 16, 3, 3)), Pool(1)).run(_maps(8), Affine(*np.ones((2, 5, 8), np.float32), LOWEST))
