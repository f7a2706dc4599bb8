"""Encodings equal pycocotools' byte for byte; soft masks are resized as by two torch resizes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from solo_results.rle import decode_rle
from solo_server.backends.bilinear_taps import original_taps
from solo_server.backends.cpu.encode import EncodedMask, encode_mask
from solo_server.backends.cpu.kernels.soft_masks import SPARE, padded_width
from solo_server.types import Geometry, SoftMask
from torch.nn import functional as F


def _special(name: str) -> NDArray[np.bool_]:
    mask = np.zeros((5, 7), bool)
    if name == "full":
        mask[:] = True
    elif name == "first pixel":
        mask[0, 0] = True
    elif name == "last pixel":
        mask[-1, -1] = True
    elif name == "last column":
        mask[:, -1] = True
    elif name == "two whole columns":
        mask[:, 2:4] = True
    elif name == "last row":
        mask[-1] = True
    elif name == "chessboard":
        mask[::2, ::2] = True
    return mask


SPECIAL = ("empty", "full", "first pixel", "last pixel", "last column", "two whole columns", "last row", "chessboard")


def _encoded(soft: NDArray[np.float32], geometry: Geometry, stride: int) -> EncodedMask:
    """The encoding of a soft mask `(h, w)` that is exact everywhere."""
    height, width = soft.shape
    framed = np.zeros((height + SPARE, padded_width(width)), np.float32)
    framed[:height, :width] = soft
    mask = SoftMask(framed.ravel(), framed.shape[1], np.array([0, height, 0, width]))
    return encode_mask(mask, geometry, stride, 0.5)


def _check(mask: NDArray[np.bool_]) -> None:
    expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    hw = (mask.shape[0], mask.shape[1])
    found = _encoded(mask.astype(np.float32), Geometry(hw, hw, hw), 1)
    assert found.rle.counts.encode() == expected["counts"]
    assert found.rle.size == tuple(expected["size"])
    assert found.area == coco_mask.area(expected)
    assert found.box_xywh == tuple(coco_mask.toBbox(expected))
    assert np.array_equal(decode_rle(found.rle), mask)


@pytest.mark.parametrize("name", SPECIAL)
def test_special_masks_encode_as_pycocotools_does(name: str) -> None:
    _check(_special(name))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_random_masks_encode_as_pycocotools_does(height: int, width: int, share: float, seed: int) -> None:
    _check(np.random.default_rng(seed).random((height, width)) < share)


def test_long_runs_and_large_differences_encode_as_pycocotools_does() -> None:
    mask = np.zeros((900, 1200), bool)
    mask[13:700, 100] = True
    mask[3, 500:1100] = True
    _check(mask)


def test_more_runs_than_the_first_buffer_holds_are_all_encoded() -> None:
    mask = np.zeros((300, 301), bool)
    mask[::2, ::2] = True
    _check(mask)


def _torch_mask(soft: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    up = F.interpolate(torch.from_numpy(soft)[None, None], size=geometry.padded_hw, mode="bilinear")
    cropped = up[:, :, : geometry.resized_hw[0], : geometry.resized_hw[1]]
    return F.interpolate(cropped, size=geometry.original_hw, mode="bilinear")[0, 0].numpy()


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((480, 640), (384, 512), (384, 512)),
        Geometry((333, 500), (256, 385), (256, 416)),
        Geometry((70, 31), (128, 57), (128, 64)),
        Geometry((1, 300), (1, 192), (32, 192)),
        Geometry((2000, 3000), (128, 192), (128, 192)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_soft_masks_become_the_masks_of_two_torch_resizes(geometry: Geometry, seed: int) -> None:
    h, w = geometry.padded_hw[0] // 4, geometry.padded_hw[1] // 4
    coarse = torch.from_numpy(np.random.default_rng(seed).random((1, 1, 4, 4)))
    soft = F.interpolate(coarse, size=(h, w), mode="bicubic")[0, 0].float().numpy()
    expected = _torch_mask(soft, geometry)
    found = decode_rle(_encoded(soft, geometry, 4).rle)
    sure = np.abs(expected - 0.5) > 1e-5  # both round differently in the last bits
    assert np.array_equal(found[sure], (expected > 0.5)[sure])
    assert sure.mean() > 0.99


SIZES = [
    *[Geometry((600, 3), (96, 1), (96, 32)), Geometry((1500, 90), (160, 10), (160, 32)), Geometry((97, 61), (128, 80), (128, 96))],
    *[Geometry((40, 30), (128, 96), (128, 96)), Geometry((2000, 2), (32, 1), (32, 32)), Geometry((333, 50), (256, 38), (256, 64))],
]  # fmt: skip


def _computed_mask(soft: NDArray[np.float32], geometry: Geometry, stride: int) -> NDArray[np.bool_]:
    """The mask with every pixel of the original computed, in float32 and in the order of the kernel."""
    framed = np.zeros((soft.shape[0] + SPARE, soft.shape[1] + SPARE), np.float32)
    framed[: soft.shape[0], : soft.shape[1]] = soft
    for axis in (1, 0):
        sizes = (geometry.padded_hw[axis], geometry.resized_hw[axis], geometry.original_hw[axis])
        first, _, weights = original_taps(sizes[0] // stride, stride, *sizes[1:])
        weights = weights[:, None, :] if axis else weights[:, :, None]
        a, b, c = (weights[i] * framed.take(first + i, axis) for i in range(3))
        framed = (a + b) + c
        if axis:  # a column where nothing exceeds the threshold stays empty
            framed *= (framed > 0.5).any(0)
    return framed > 0.5


@pytest.mark.parametrize("geometry", SIZES)
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-5, 1e-6, 1e-7, 0.0])
def test_what_is_not_computed_is_what_it_would_be(geometry: Geometry, stride: int, spread: float) -> None:
    hw = (geometry.padded_hw[0] // stride, geometry.padded_hw[1] // stride)
    rng = np.random.default_rng(5)
    smooth = np.cumsum(rng.normal(0, 0.3, hw), axis=0) / np.sqrt(hw[0])
    for signs in (rng.normal(0, 1, hw), smooth, np.sign(rng.normal(0, 1, hw))):
        soft = (0.5 + np.clip(signs, -1, 1) * spread / 2).astype(np.float32)
        expected = coco_mask.encode(np.asfortranarray(_computed_mask(soft, geometry, stride).astype(np.uint8)))
        assert _encoded(soft, geometry, stride).rle.counts.encode() == expected["counts"]


@pytest.mark.parametrize("geometry", SIZES)
def test_nan_pixels_are_in_no_mask_and_change_no_other_pixel(geometry: Geometry) -> None:
    hw = (geometry.padded_hw[0] // 4, geometry.padded_hw[1] // 4)
    rng = np.random.default_rng(6)
    soft = np.where(rng.random(hw) < 0.2, np.nan, rng.random(hw)).astype(np.float32)
    expected = coco_mask.encode(np.asfortranarray(_computed_mask(soft, geometry, 4).astype(np.uint8)))
    assert _encoded(soft, geometry, 4).rle.counts.encode() == expected["counts"]


def test_a_soft_mask_that_never_exceeds_the_threshold_is_empty() -> None:
    geometry = Geometry((20, 20), (32, 32), (32, 32))
    counts = coco_mask.encode(np.zeros((20, 20), np.uint8, order="F"))["counts"].decode()
    for found in (_encoded(np.full((8, 8), 0.5, np.float32), geometry, 4), encode_mask(None, geometry, 4, 0.5)):
        assert (found.area, found.box_xywh, found.rle.counts) == (0, (0, 0, 0, 0), counts)


def test_pixels_in_the_padding_are_not_in_the_mask() -> None:
    soft = np.zeros((8, 8), np.float32)
    soft[6:, 6:] = 1
    assert _encoded(soft, Geometry((16, 16), (16, 16), (32, 32)), 4).area == 0
