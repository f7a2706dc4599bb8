"""Encodings are byte-equal to pycocotools', and soft masks come out as two torch resizes would make them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from solo_server.rle import bilinear_matrix, decode_rle, outline_of_binary, outline_of_soft
from solo_server.types import Geometry
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


def _check(mask: NDArray[np.bool_]) -> None:
    expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    outline = outline_of_binary(mask)
    assert outline.rle().counts.encode() == expected["counts"]
    assert outline.rle().size == tuple(expected["size"])
    assert outline.area == coco_mask.area(expected)
    assert outline.box_xywh() == tuple(coco_mask.toBbox(expected))
    assert np.array_equal(decode_rle(outline.rle()), mask)


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


@pytest.mark.parametrize(("length", "target"), [(5, 10), (7, 28), (13, 9), (4, 4), (1, 6), (100, 33)])
def test_bilinear_matrix_is_torchs_interpolation(length: int, target: int) -> None:
    signal = torch.rand(1, 1, length, dtype=torch.float64)
    expected = F.interpolate(signal, size=target, mode="linear", align_corners=False)[0, 0].numpy()
    np.testing.assert_allclose(bilinear_matrix(length, target) @ signal[0, 0].numpy(), expected, atol=1e-6)


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
    outline = outline_of_soft(soft, geometry, 4, 0.5)
    found = decode_rle(outline.rle())
    sure = np.abs(expected - 0.5) > 1e-5  # both round differently in the last bits
    assert np.array_equal(found[sure], (expected > 0.5)[sure])
    assert sure.mean() > 0.99


def test_a_soft_mask_that_never_exceeds_the_threshold_is_empty() -> None:
    outline = outline_of_soft(np.full((8, 8), 0.5, np.float32), Geometry((20, 20), (32, 32), (32, 32)), 4, 0.5)
    assert outline.area == 0
    assert outline.box_xywh() == (0, 0, 0, 0)
    assert outline.rle().counts == coco_mask.encode(np.zeros((20, 20), np.uint8, order="F"))["counts"].decode()


def test_what_lies_in_the_padding_only_is_not_in_the_mask() -> None:
    soft = np.zeros((8, 8), np.float32)
    soft[6:, 6:] = 1
    assert outline_of_soft(soft, Geometry((16, 16), (16, 16), (32, 32)), 4, 0.5).area == 0
