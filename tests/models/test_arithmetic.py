"""Counted on paper against counted in the network: hooks on every convolution of the plain torch form."""

from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from solo_models import arithmetic, backbone
from solo_models.backbone import SameConv
from solo_models.network import SoloNetwork
from solo_models.spec import ModelSpec, PreprocessSpec
from support.specs import VARIANTS, deformable_spec, tiny_spec
from torch import nn

HW = (64, 96)


def _counted(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """GFLOP of every convolution that one forward pass runs, by module."""
    network = SoloNetwork(spec).eval()
    names = {module: name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    found: defaultdict[str, float] = defaultdict(float)

    def count(conv: nn.Conv2d, out: torch.Tensor) -> None:
        found[names[conv]] += 2 * out.numel() * conv.weight[0].numel() / 1e9

    def counted_normed(conv: SameConv, x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
        out = normed(conv, x, norm)
        count(conv, out)
        return out

    normed = SameConv.normed  # runs its convolution past `forward`, where hooks do not see it
    monkeypatch.setattr(SameConv, "normed", counted_normed)
    for module in names:
        module.register_forward_hook(lambda conv, _, out: count(conv, out))
    with torch.no_grad():
        network(torch.zeros((1, *HW, 3), dtype=torch.uint8), torch.tensor([HW]))
    return dict(found)


def _part(counted: dict[str, float], *prefixes: str) -> float:
    return sum(gflop for name, gflop in counted.items() if name.startswith(prefixes))


def _lite0_spec() -> ModelSpec:
    return ModelSpec(
        variant="decoupled_light",
        backbone="efficientnet_lite0",
        class_names=("person",),
        grids=(9, 5, 3),
        fpn_strides=(8, 16, 32),
        strides=(8, 16, 32),
        fpn_channels=16,
        head_channels=16,
        head_depth=2,
        norm_groups=4,
    )


SPECS = {
    **{variant: tiny_spec(variant) for variant in VARIANTS},
    "resnet50": replace(tiny_spec("solo"), backbone="resnet50"),
    "deformable": deformable_spec("decoupled_light"),
    "lite0": _lite0_spec(),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_the_reference_form_counts_what_the_plain_network_runs(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, expected = _counted(spec, monkeypatch), arithmetic.reference(spec, HW)
    assert expected.backbone == pytest.approx(_part(counted, "backbone."))
    assert expected.neck == pytest.approx(_part(counted, "neck."))
    assert expected.categories == pytest.approx(_part(counted, "head.category_tower.", "head.categories"))
    assert sum(expected.towers) == pytest.approx(_part(counted, "head.mask_towers."))
    assert expected.last == pytest.approx(_part(counted, "head.kernels"))
    assert expected.total == pytest.approx(sum(counted.values()))


def test_published_figures_of_solo_r50_at_512x896() -> None:
    spec = ModelSpec("solo", "resnet50", tuple(f"class {i}" for i in range(80)))
    expected = arithmetic.reference(spec, (512, 896))
    assert expected.backbone == pytest.approx(74.7, abs=0.1)
    assert expected.neck == pytest.approx(52.0, abs=0.1)
    assert expected.towers == pytest.approx((59.3, 59.3, 14.8, 3.7, 3.7), abs=0.1)
    assert expected.last == pytest.approx(45.0, abs=0.1)
    assert expected.categories == pytest.approx(33.4, abs=0.1)
    assert expected.total == pytest.approx(345.8, abs=0.2)


def test_folding_the_halving_of_p2_leaves_four_ninths_of_its_convolution() -> None:
    spec = replace(tiny_spec("solo"), fpn_channels=32)
    plain, folded = arithmetic.reference(spec, HW).neck, arithmetic.needed(spec, HW).neck
    p2_output = 2 * (HW[0] // 4) * (HW[1] // 4) * 9 * 32 * 32 / 1e9
    assert plain - folded == pytest.approx(p2_output * 5 / 9)


def test_only_levels_in_the_set_cost_a_tower_and_only_selected_kernels_a_last_convolution() -> None:
    spec = tiny_spec("solo")
    all_levels, some = arithmetic.needed(spec, HW), arithmetic.needed(spec, HW, levels={1, 3}, kernels={1: 5, 3: 2})
    assert some.towers == (0, all_levels.towers[1], 0, all_levels.towers[3], 0)
    assert all_levels.last == 0
    pixels = {1: (HW[0] // 8) * (HW[1] // 8), 3: (HW[0] // 32) * (HW[1] // 32)}
    assert some.last == pytest.approx(2 * spec.head_channels * (5 * pixels[1] + 2 * pixels[3]) / 1e9)


def test_without_candidates_no_tower_runs() -> None:
    assert arithmetic.needed(tiny_spec("decoupled"), HW, levels=()).towers == (0, 0, 0, 0, 0)


def test_the_tables_of_backbones_are_those_of_the_network() -> None:
    assert arithmetic.LITE0_STAGES == backbone.LITE0_STAGES
    assert arithmetic.RESNET_BLOCKS == backbone.RESNET_BLOCKS


def test_sizes_scale_with_the_image() -> None:
    spec = replace(tiny_spec("decoupled"), preprocess=PreprocessSpec())
    small, large = arithmetic.needed(spec, (128, 192)), arithmetic.needed(spec, (256, 384))
    assert large.backbone == pytest.approx(4 * small.backbone)
    assert large.categories == small.categories  # the grid is the same
