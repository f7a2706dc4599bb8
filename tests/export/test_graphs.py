"""The ONNX graphs are the network, at every size and batch; the check that guards them does catch what is wrong."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from solo_export.onnx import categories_model, export_graphs, fold_halving, masks_model
from solo_export.parity import ParityError, check_parity
from solo_models.network import SoloNetwork
from solo_models.spec import ModelSpec, PreprocessSpec, Variant
from support.networks import tiny_network
from support.specs import deformable_spec, quick_spec
from torch.nn import functional as F


@pytest.fixture(scope="module")
def models(network: SoloNetwork) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    return categories_model(network), masks_model(network)


@pytest.fixture(scope="module")
def quick() -> tuple[SoloNetwork, onnx.ModelProto, onnx.ModelProto]:
    """A network and its graphs, for damage that the check finds in every variant alike."""
    network = tiny_network("decoupled", quick_spec("decoupled"))
    return network, categories_model(network), masks_model(network)


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_halving_folds_into_the_convolution() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, 8, 12).double(), torch.randn(4, 3, 3, 3).double(), torch.randn(4).double()
    plain = F.interpolate(F.conv2d(x, weight, bias, padding=1), scale_factor=0.5, mode="bilinear")
    folded = F.conv2d(x, torch.from_numpy(fold_halving(weight.numpy())), bias, stride=2, padding=1)
    assert (plain - folded).abs().max() < 1e-13


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (1, 64, 160), (3, 96, 64)])
@torch.no_grad()
def test_outputs_follow_any_size_and_batch(
    network: SoloNetwork, models: tuple[onnx.ModelProto, onnx.ModelProto], batch: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(width)
    images = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    image_hw = np.array([[height - i, width - 7] for i in range(batch)])
    scores, *levels = _session(models[0]).run(None, {"images": images, "image_hw": image_hw})
    assert scores.shape == (batch, network.spec.num_cells, 3)
    expected = network.level_features(network.normalise(torch.from_numpy(images), torch.from_numpy(image_hw)))
    masks = _session(models[1])
    for level, feature in zip(levels, expected, strict=True):
        np.testing.assert_allclose(level, feature.numpy(), atol=2e-4)
        for part, wanted in zip(
            masks.run(None, {"level": feature.numpy()}), network.head.mask_features(feature), strict=True
        ):
            np.testing.assert_allclose(part, wanted.numpy(), atol=2e-4)


def test_padding_is_zero_after_normalising_whatever_it_holds(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    images = np.full((1, 64, 64, 3), 90, np.uint8)
    dirty = images.copy()
    dirty[:, 50:], dirty[:, :, 40:] = 200, 7
    image_hw, session = np.array([[50, 40]]), _session(models[0])
    clean, other = (session.run(["level_0"], {"images": i, "image_hw": image_hw})[0] for i in (images, dirty))
    np.testing.assert_array_equal(clean, other)


def test_inputs_and_outputs_have_fixed_names(
    network: SoloNetwork, models: tuple[onnx.ModelProto, onnx.ModelProto]
) -> None:
    categories, masks = (([i.name for i in m.graph.input], [o.name for o in m.graph.output]) for m in models)
    towers = 2 if network.spec.variant == "decoupled" else 1
    assert categories == (["images", "image_hw"], ["scores", *(f"level_{i}" for i in range(5))])
    assert masks == (["level"], [f"mask_features_{i}" for i in range(towers)])


def test_batch_norm_is_folded_away(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    assert not any("running" in tensor.name or ".bn" in tensor.name for tensor in models[0].graph.initializer)


def test_the_check_passes_on_what_the_exporter_makes(
    network: SoloNetwork, models: tuple[onnx.ModelProto, onnx.ModelProto]
) -> None:
    report = check_parity(network, *models)
    assert report.max_score_difference < 1e-4
    assert report.max_mask_feature_difference < 1e-4


@pytest.mark.parametrize(
    ("graph", "weight", "named"),
    [
        (0, "categories.bias", "scores"),
        (0, "neck.output.2.bias", "level features"),
        (1, "mask_tower_0.1.norm.bias", "mask features"),
    ],
)
def test_the_check_catches_a_wrong_weight(
    quick: tuple[SoloNetwork, onnx.ModelProto, onnx.ModelProto], graph: int, weight: str, named: str
) -> None:
    network, *models = quick
    damaged = [onnx.ModelProto.FromString(m.SerializeToString()) for m in models]
    tensor = next(t for t in damaged[graph].graph.initializer if t.name == weight)
    array = onnx.numpy_helper.to_array(tensor) + 0.1
    tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), weight))
    with pytest.raises(ParityError, match=named):
        check_parity(network, *damaged)


def test_the_check_refuses_constants_that_hold_a_batch_of_one(
    quick: tuple[SoloNetwork, onnx.ModelProto, onnx.ModelProto],
) -> None:
    """Such a graph parses and answers, but for one image only."""
    network, *models = quick
    damaged = [onnx.ModelProto.FromString(m.SerializeToString()) for m in models]
    frozen = [0, network.spec.num_classes, network.spec.grids[0] ** 2]
    for tensor in damaged[0].graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64 and onnx.numpy_helper.to_array(tensor).tolist() == frozen:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([1, frozen[1], -1]), tensor.name))
    with pytest.raises(ParityError, match=r"shape \(2,|returns shape"):
        check_parity(network, *damaged)


@pytest.mark.parametrize("variant", ["solo", "decoupled", "decoupled_light"])
def test_deformable_networks_export_with_plain_operators(variant: Variant) -> None:
    network = tiny_network(variant, deformable_spec(variant))
    graphs = export_graphs(network)
    report = check_parity(network, graphs.categories, graphs.masks)
    assert max(report.max_score_difference, report.max_mask_feature_difference) < 1e-4
    operators = {node.op_type for model in (graphs.categories, graphs.masks) for node in model.graph.node}
    assert "GridSample" in operators


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50", "efficientnet_lite0"])
def test_other_backbones_and_pyramids_export(backbone: str) -> None:
    torch.manual_seed(1)
    three = {"grids": (6, 5, 4), "fpn_strides": (8, 16, 32), "strides": (8, 16, 32)} if "lite" in backbone else {}
    sizes = {"fpn_channels": 16, "head_channels": 16, "head_depth": 1, "norm_groups": 4}
    spec = ModelSpec("decoupled_light", backbone, ("a",), preprocess=PreprocessSpec(96, 64), **sizes, **three)  # type: ignore[arg-type]  # parametrised
    network = SoloNetwork(spec).eval()
    check_parity(network, categories_model(network), masks_model(network))


def test_doubled_and_plain_last_levels_export(network: SoloNetwork) -> None:
    spec = replace(network.spec, strides=(8, 8, 16, 32, 64), preprocess=PreprocessSpec(192, 128, pad_multiple=64))
    other = SoloNetwork(spec).eval()
    images = np.zeros((1, 128, 192, 3), np.uint8)
    feeds = {"images": images, "image_hw": np.array([[128, 192]])}
    level = _session(categories_model(other)).run(["level_4"], feeds)[0]
    assert level.shape == (1, 16, 2, 3)
