"""Masks are tinted and outlined on the image, and nothing else changes."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from solo_results.contour import TINT, draw_mask, open_canvas, pen_for, to_image

GREY = 100
RED = (255, 64, 64)  # bright: the outer line is black
NAVY = (20, 20, 90)  # dark: the outer line is white


def _drawn(
    mask: NDArray[np.bool_], left: int = 0, top: int = 0, colour: tuple[int, int, int] = RED, hw: tuple[int, int] = (60, 80),
    level: int = GREY,
) -> NDArray[np.uint8]:  # fmt: skip
    canvas = open_canvas(np.full((*hw, 3), level, np.uint8))
    draw_mask(canvas, mask, left, top, colour)
    return np.asarray(to_image(canvas))


def _disc(radius: int) -> NDArray[np.bool_]:
    side = np.arange(-radius, radius + 1)
    return side[:, None] ** 2 + side[None] ** 2 <= radius**2


def test_a_canvas_without_masks_is_the_image() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(to_image(open_canvas(noise))), noise)


def test_the_given_image_is_not_changed() -> None:
    rgb = np.full((60, 80, 3), GREY, np.uint8)
    draw_mask(open_canvas(rgb), _disc(10), 5, 5, RED)
    assert (rgb == GREY).all()


def test_inside_the_tint_is_three_eighths_of_the_colour() -> None:
    for level in (0, 37, 100, 255):
        middle = _drawn(np.ones((20, 30), bool), 20, 20, level=level)[30, 35]
        np.testing.assert_allclose(middle, level + TINT * (np.array(RED) - level), atol=2)


@pytest.mark.parametrize("value", [0, 1, 7, 128, 254, 255])
def test_the_tint_never_leaves_the_range_of_a_byte(value: int) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 12, 0).repeat(3, 2)
    canvas = open_canvas(ramp)
    draw_mask(canvas, np.ones((12, 256), bool), 0, 0, (value, value, value))
    inside = np.asarray(to_image(canvas))[6, 4:-4, 0].astype(int)
    before = ramp[6, 4:-4, 0].astype(int)
    low, high = np.minimum(before, value), np.maximum(before, value)
    assert (inside >= low - 2).all()
    assert (inside <= high + 2).all()


def test_pixels_beyond_the_lines_do_not_change() -> None:
    drawn = _drawn(_disc(12), 20, 15)
    mask = np.zeros((60, 80), bool)
    mask[15:40, 20:45] = _disc(12)
    pen = pen_for((60, 80))
    away = ndimage.distance_transform_edt(~mask) > pen.width / 2 + pen.outer + 1.5
    assert (drawn[away] == GREY).all()
    assert (drawn[~away & ~mask] != GREY).any()


@pytest.mark.parametrize(("colour", "around"), [(RED, 0), (NAVY, 255)])
def test_the_line_has_the_colour_and_an_outer_line_of_contrast(colour: tuple[int, int, int], around: int) -> None:
    row = _drawn(np.ones((30, 40), bool), 20, 15, colour)[30].astype(int)
    edge = np.abs(row[18:23] - colour).max(1)
    assert edge.min() <= 20  # the line
    outside = row[15:19].mean(1)
    darkest = outside.min() if around == 0 else outside.max()
    assert abs(darkest - around) < abs(GREY - around) - 20


def test_the_line_of_an_ordinary_image_is_one_and_a_half_to_two_pixels_wide() -> None:
    for hw in ((200, 200), (480, 640), (1080, 1920)):
        assert 1.5 <= pen_for(hw).width <= 2


def test_the_line_grows_with_the_image() -> None:
    assert 6 <= pen_for((4000, 6000)).width <= 8
    row = _drawn(np.ones((2000, 2000), bool), 1000, 1000, hw=(4000, 6000))[2000, 980:1020].astype(int)
    assert 5 <= (np.abs(row - RED).max(1) < 30).sum() <= 8


def test_a_slanted_edge_is_anti_aliased() -> None:
    slanted = np.arange(40)[None] < 5 + 0.37 * np.arange(40)[:, None]
    drawn = _drawn(slanted, 20, 10)[15:45, 22:60, 1]
    assert len(np.unique(drawn)) > 10


def test_a_hole_is_outlined_and_not_tinted() -> None:
    mask = np.ones((40, 40), bool)
    mask[12:28, 12:28] = False
    drawn = _drawn(mask, 20, 10)
    assert (drawn[10 + 17 : 10 + 23, 20 + 17 : 20 + 23] == GREY).all()
    assert (np.abs(drawn[30, 20 + 10 : 20 + 14].astype(int) - RED).max(1) < 30).any()


@pytest.mark.parametrize(("left", "top"), [(0, 0), (55, 0), (0, 35), (55, 35)])
def test_masks_at_the_border_are_drawn_where_they_are(left: int, top: int) -> None:
    drawn = _drawn(_disc(12), left, top)
    changed = (drawn != GREY).any(2)
    mask = np.zeros((60, 80), bool)
    mask[top : top + 25, left : left + 25] = _disc(12)
    assert changed[mask].all()
    assert not changed[ndimage.distance_transform_edt(~mask) > 4].any()


def test_a_line_is_the_same_at_the_border_as_away_from_it() -> None:
    centre = _drawn(_disc(8), 30, 20, hw=(60, 80))
    corner = _drawn(_disc(8), 0, 0, hw=(60, 80))
    np.testing.assert_array_equal(corner[:20, :20], centre[20:40, 30:50])


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 2)])
def test_the_smallest_masks_are_visible(shape: tuple[int, int]) -> None:
    assert (_drawn(np.ones(shape, bool), 20, 10) != GREY).any()


@pytest.mark.parametrize("hw", [(1, 1), (1, 300), (300, 1), (9, 14)])
def test_masks_of_the_smallest_images_are_drawn(hw: tuple[int, int]) -> None:
    drawn = _drawn(np.ones(hw, bool), hw=hw)
    assert drawn.shape == (*hw, 3)
    assert (drawn != GREY).any()
