"""The resize equals OpenCV's bilinear resize bit for bit. Only the tests need OpenCV."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from solo_server.backends.cpu.kernels.resize import resize_bilinear
from support.images import smooth_image

UInt8 = NDArray[np.uint8]
SIDES = st.one_of(st.integers(1, 6), st.integers(1, 120))


def _resized(pixels: UInt8, h: int, w: int) -> UInt8:
    out = np.full((h, w, 3), 77, np.uint8)
    resize_bilinear(pixels, (h, w), out)
    return out


def _grey(rows: list[list[int]]) -> UInt8:
    return np.repeat(np.array(rows, np.uint8)[:, :, None], 3, axis=2)


def _check(pixels: UInt8, h: int, w: int) -> None:
    np.testing.assert_array_equal(_resized(pixels, h, w), cv2.resize(pixels, (w, h), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[9]], [[9, 9, 9], [9, 9, 9]]),
        ([[0, 200]], [[0, 50, 150, 200]]),
        ([[0], [200]], [[0], [50], [150], [200]]),
        ([[1, 2], [3, 4]], [[3]]),  # 2.5 is rounded up
        ([[0, 0], [0, 1]], [[0]]),
        ([[0, 100], [100, 200]], [[0, 50, 100], [50, 100, 150], [100, 150, 200]]),
        ([[10, 20, 30, 40, 50]], [[13, 30, 47]]),  # centres lie at 1/3, 2 and 11/3
    ],
)
def test_hand_made_images_are_interpolated_at_pixel_centres(rows: list[list[int]], expected: list[list[int]]) -> None:
    np.testing.assert_array_equal(_resized(_grey(rows), len(expected), len(expected[0])), _grey(expected))


def test_colours_stay_apart() -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    np.testing.assert_array_equal(_resized(pixels, 1, 1), [[[128, 128, 128]]])
    np.testing.assert_array_equal(_resized(pixels, 1, 2), [[[128, 0, 128], [128, 255, 128]]])


@pytest.mark.parametrize("hw", [(1, 1), (1, 6), (7, 1), (2, 2), (3, 5), (16, 17), (41, 64), (63, 33)])
@pytest.mark.parametrize("to", [(1, 1), (1, 9), (8, 1), (2, 2), (5, 3), (20, 16), (40, 65), (127, 31)])
def test_sizes_of_every_kind_equal_opencvs(hw: tuple[int, int], to: tuple[int, int]) -> None:
    _check(smooth_image(*hw), *to)


@pytest.mark.parametrize("hw", [(2, 2), (2, 34), (46, 2), (64, 96), (90, 62)])
def test_halving_equals_opencvs_separate_code_for_it(hw: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8)
    _check(noise, hw[0] // 2, hw[1] // 2)
    quarters = noise.astype(int).reshape(hw[0] // 2, 2, hw[1] // 2, 2, 3).sum((1, 3))
    np.testing.assert_array_equal(_resized(noise, hw[0] // 2, hw[1] // 2), (quarters + 2) // 4)


@pytest.mark.parametrize(
    ("hw", "to"),
    [((480, 640), (800, 1067)), ((1500, 2000), (800, 1067)), ((512, 768), (213, 320)), ((3, 16384), (2, 9001))],
)
def test_images_of_usual_sizes_equal_opencvs(hw: tuple[int, int], to: tuple[int, int]) -> None:
    _check(smooth_image(*hw), *to)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_an_image_of_one_colour_equals_opencvs(value: int) -> None:
    for to in ((29, 31), (97, 113), (6, 200)):
        _check(np.full((13, 47, 3), value, np.uint8), *to)


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**32 - 1), st.booleans())
def test_random_images_and_sizes_equal_opencvs(
    height: int, width: int, h: int, w: int, seed: int, extreme: bool
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    _check(np.where(pixels > 127, 255, 0).astype(np.uint8) if extreme else pixels, h, w)


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_integer_ratios_up_and_down_equal_opencvs(h: int, w: int, down: int, across: int, up: bool) -> None:
    small, large = (h, w), (h * down, w * across)
    before, after = (small, large) if up else (large, small)
    _check(np.random.default_rng(h * w).integers(0, 256, (*before, 3), np.uint8), *after)


@pytest.mark.parametrize("view", ["read-only", "turned", "mirrored", "part"])
def test_an_image_may_have_any_memory_layout(view: str) -> None:
    pixels = smooth_image(40, 60).copy()
    seen = {
        "read-only": pixels.view(),
        "turned": pixels.transpose(1, 0, 2),
        "mirrored": pixels[:, ::-1],
        "part": pixels[3:30, 5:50],
    }[view]
    if view == "read-only":
        seen.flags.writeable = False
    np.testing.assert_array_equal(_resized(seen, 33, 47), _resized(seen.copy(), 33, 47))


def test_pixels_beyond_the_size_are_not_written() -> None:
    out = np.full((40, 50, 3), 77, np.uint8)
    resize_bilinear(smooth_image(20, 30), (33, 41), out)
    np.testing.assert_array_equal(out[:33, :41], _resized(smooth_image(20, 30), 33, 41))
    assert (out[33:] == 77).all()
    assert (out[:, 41:] == 77).all()


def test_the_source_image_is_not_changed() -> None:
    pixels = smooth_image(20, 30).copy()
    _resized(pixels, 40, 20)
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, smooth_image(20, 30))


@pytest.mark.parametrize(
    ("pixels", "hw", "out"),
    [
        (np.zeros((4, 5, 3), np.uint8), (9, 5), np.zeros((8, 5, 3), np.uint8)),
        (np.zeros((4, 5, 3), np.uint8), (8, 6), np.zeros((8, 5, 3), np.uint8)),
        (np.zeros((4, 5, 3), np.uint8), (0, 5), np.zeros((8, 5, 3), np.uint8)),
        (np.zeros((0, 5, 3), np.uint8), (8, 5), np.zeros((8, 5, 3), np.uint8)),
        (np.zeros((4, 5, 4), np.uint8), (8, 5), np.zeros((8, 5, 3), np.uint8)),
        (np.zeros((4, 5, 3), np.float32), (8, 5), np.zeros((8, 5, 3), np.uint8)),
        (np.zeros((4, 5, 3), np.uint8), (8, 5), np.zeros((8, 10, 3), np.uint8)[:, ::2]),
    ],
)
def test_arrays_that_a_kernel_would_overrun_are_refused(pixels: UInt8, hw: tuple[int, int], out: UInt8) -> None:
    with pytest.raises(ValueError, match="resize"):
        resize_bilinear(pixels, hw, out)
