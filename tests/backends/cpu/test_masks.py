"""Masks of selected cells against torch's interpolation of whole maps."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from solo_models.bundle import kernel_shapes
from solo_models.spec import Variant
from solo_server.backends.cpu.masks import CellMasks
from solo_server.backends.cpu.pool import Pool
from solo_server.errors import EngineFailure
from solo_server.types import SoftMask
from support.specs import tiny_spec
from torch.nn import functional as F

MASK_HW = (40, 56)


LEVELS = ((20, 28), (20, 28), (10, 14), (5, 7), (5, 7))


SPEC_GRIDS = tiny_spec("solo").grids


def _model(variant: Variant, seed: int = 0):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    spec = tiny_spec(variant)
    kernels = {
        name: (rng.standard_normal(shape) * (2 if len(shape) == 1 else 0.6)).astype(np.float32)
        for name, shape in kernel_shapes(spec).items()
    }
    towers = 2 if variant == "decoupled" else 1
    features = {
        i: [np.maximum(_smooth(rng, spec.head_channels, hw), 0) for _ in range(towers)] for i, hw in enumerate(LEVELS)
    }
    return spec, kernels, features


def _smooth(rng: np.random.Generator, channels: int, hw: tuple[int, int]) -> NDArray[np.float32]:
    coarse = torch.from_numpy(rng.standard_normal((1, channels, 3, 4)))
    return F.interpolate(coarse, size=hw, mode="bicubic")[0].float().numpy()


def _reference_mask(spec, kernels, features, cell: int) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    """One mask as the reference computes it: doubled features, last convolution, sigmoid, resize."""
    first = np.cumsum([0, *(g * g for g in spec.grids)])
    level = int(np.searchsorted(first, cell, side="right") - 1)
    within = cell - first[level]

    def soft(feature: NDArray[np.float32], weight: NDArray[np.float32], bias: float) -> torch.Tensor:
        doubled = F.interpolate(torch.from_numpy(feature.copy())[None].double(), scale_factor=2, mode="bilinear")
        kernel = torch.from_numpy(weight).double().reshape(1, len(feature), *weight.shape[1:] or (1, 1))
        logits = F.conv2d(doubled, kernel, padding=kernel.shape[-1] // 2) + bias
        return F.interpolate(logits.sigmoid(), size=MASK_HW, mode="bilinear")[0, 0]

    if not spec.is_decoupled:
        return soft(features[level][0], kernels[f"level{level}"][within], kernels[f"level{level}_bias"][within]).numpy()
    row, column = divmod(within, spec.grids[level])
    x, y = kernels[f"level{level}_x"][column], kernels[f"level{level}_y"][row]
    x_bias, y_bias = kernels[f"level{level}_x_bias"][column], kernels[f"level{level}_y_bias"][row]
    return (soft(features[level][0], x, x_bias) * soft(features[level][-1], y, y_bias)).numpy()


CELLS = np.array([0, 7, 80, 81, 100, 144, 150, 193, 200, 229, 230, 254])


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.9])
@pytest.mark.parametrize("variant", ["solo", "decoupled", "decoupled_light"])
def test_masks_are_those_of_the_plain_form(variant: Variant, threshold: float) -> None:
    spec, kernels, features = _model(variant)
    masks = CellMasks((spec, kernels), features, MASK_HW, threshold, Pool(2))
    measures = masks.measure(CELLS)
    bits = np.unpackbits(measures.bits.view(np.uint8), axis=2, bitorder="little")[:, :, : MASK_HW[1]]
    expected = np.stack([_reference_mask(spec, kernels, features, cell) for cell in CELLS])
    sure = np.abs(expected - threshold) > 1e-5
    assert np.array_equal(bits.astype(bool)[sure], (expected > threshold)[sure])
    assert np.array_equal(measures.areas, bits.sum((1, 2)))
    assert sum(measures.areas > 0) >= 6
    for maskness, mask, area in zip(measures.maskness, expected, measures.areas, strict=True):
        assert maskness == pytest.approx(mask[mask > threshold].mean() if area else 0, abs=1e-4)


@pytest.mark.parametrize("variant", ["solo", "decoupled"])
def test_boxes_hold_exact_values_and_every_pixel_above_the_threshold(variant: Variant) -> None:
    spec, kernels, features = _model(variant, seed=4)

    def check(mask: SoftMask | None) -> NDArray[np.float32] | None:
        if mask is None:
            return None
        top, bottom, left, right = mask.box
        whole = np.full(MASK_HW, np.nan, np.float32)
        values = mask.values[: MASK_HW[0] * mask.step].reshape(MASK_HW[0], mask.step)
        whole[top:bottom, left:right] = values[top:bottom, left:right]
        return whole

    found = CellMasks((spec, kernels), features, MASK_HW, 0.5, Pool(1)).each(CELLS, check)
    assert sum(mask is not None for mask in found) >= 6
    for cell, mask in zip(CELLS, found, strict=True):
        expected = _reference_mask(spec, kernels, features, cell)
        known = np.zeros(MASK_HW, bool) if mask is None else ~np.isnan(mask)
        assert (expected[~known] <= 0.5 + 1e-6).all()
        if mask is not None:
            np.testing.assert_allclose(mask[known], expected[known], atol=1e-5)


def test_no_cells_give_empty_measures() -> None:
    spec, kernels, features = _model("solo")
    measures = CellMasks((spec, kernels), features, MASK_HW, 0.5, Pool(1)).measure(np.zeros(0, np.int64))
    assert measures.areas.shape == (0,)
    assert measures.bits.shape == (0, 40, 1)


def test_a_mask_does_not_depend_on_the_other_requested_masks() -> None:
    for variant in ("solo", "decoupled"):
        spec, kernels, features = _model(variant)
        together = CellMasks((spec, kernels), features, MASK_HW, 0.5, Pool(2)).measure(CELLS)
        for i, cell in enumerate(CELLS):
            alone = CellMasks((spec, kernels), features, MASK_HW, 0.5, Pool(1)).measure(np.array([cell]))
            assert np.array_equal(alone.bits[0], together.bits[i])


@pytest.mark.parametrize("shapes", [[(32, 20, 28), (32, 10, 28)], [(24, 20, 28)], [(32, 560)]])
def test_mask_features_that_do_not_fit_are_refused(shapes: list[tuple[int, ...]]) -> None:
    """Kernels do not check indices."""
    spec, kernels, _ = _model("decoupled")
    features = {0: [np.zeros(shape, np.float32) for shape in shapes]}
    with pytest.raises(EngineFailure, match="mask features of level 0 are"):
        CellMasks((spec, kernels), features, MASK_HW, 0.5, Pool(1))
