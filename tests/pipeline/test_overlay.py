"""Overlays show every instance in its own colour with its label, for any masks and images."""

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from solo_server.pipeline.overlay import draw, draw_png, not_drawn
from solo_server.types import Instance, Rle

GREY = np.full((120, 160, 3), 100, np.uint8)
TINTED = (155, 87, 87)  # grey under the first colour, a red


def _instance(mask: NDArray[np.bool_], class_id: int = 0) -> Instance:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    x, y, width, height = (int(side) for side in coco_mask.toBbox(encoded))
    rle = Rle((mask.shape[0], mask.shape[1]), encoded["counts"].decode())
    return Instance(class_id, 0.875, (x, y, width, height), int(mask.sum()), rle)


def _square(top: int = 50, left: int = 60, side: int = 40) -> NDArray[np.bool_]:
    mask = np.zeros(GREY.shape[:2], bool)
    mask[top : top + side, left : left + side] = True
    return mask


def _drawn(*instances: Instance, rgb: NDArray[np.uint8] = GREY) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(draw_png(rgb, instances, ("cat", "traffic light")))))


def test_an_image_without_instances_is_the_image() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    np.testing.assert_array_equal(_drawn(rgb=noise), noise)


def test_a_mask_is_tinted_and_outlined_and_only_its_label_changes_other_pixels() -> None:
    drawn = _drawn(_instance(_square()))
    np.testing.assert_allclose(drawn[54:86, 64:96].reshape(-1, 3), np.tile(TINTED, (32 * 32, 1)), atol=1)
    np.testing.assert_array_equal(drawn[60, 60], (255, 64, 64))
    far = np.ones(GREY.shape[:2], bool)
    far[48:92, 58:102] = False  # the mask and its outline
    far[30:51, 58:] = False  # the label, on top of its box
    assert (drawn[far] == 100).all()
    label = drawn[36:50, 60:100]
    assert (label == (255, 64, 64)).all(2).any()
    assert (label.sum(2) < 60).any()


def test_the_given_image_is_not_changed() -> None:
    rgb = GREY.copy()
    _drawn(_instance(_square()), rgb=rgb)
    np.testing.assert_array_equal(rgb, GREY)


def test_a_hole_is_outlined_and_not_tinted() -> None:
    mask = _square()
    mask[64:76, 74:86] = False
    drawn = _drawn(_instance(mask))
    assert (drawn[68:72, 78:82] == 100).all()
    np.testing.assert_array_equal(drawn[70, 73], (255, 64, 64))


def test_the_best_instance_is_drawn_on_top() -> None:
    drawn = _drawn(_instance(_square()), _instance(_square(), 1))
    red, green, blue = (int(value) for value in drawn[70, 80])
    assert red > max(green, blue)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (0, 120), (80, 0), (80, 120)])
def test_masks_in_corners_keep_their_labels_inside_the_image(top: int, left: int) -> None:
    drawn = _drawn(_instance(_square(top, left), 1))
    black = np.argwhere(drawn.sum(2) < 60)
    assert len(black)
    rows, columns = np.ptp(black, axis=0)
    assert columns > 60  # all of "traffic light 0.88"
    assert rows >= 6


def test_an_empty_mask_shows_only_its_label() -> None:
    drawn = _drawn(_instance(np.zeros(GREY.shape[:2], bool)))
    assert (drawn[20:] == 100).all()
    assert (drawn[:20] != 100).any()


@pytest.mark.parametrize("hw", [(1, 1), (1, 300), (300, 1), (9, 14)])
def test_images_smaller_than_a_label_are_drawn_too(hw: tuple[int, int]) -> None:
    drawn = _drawn(_instance(np.ones(hw, bool)), rgb=np.full((*hw, 3), 100, np.uint8))
    assert drawn.shape == (*hw, 3)
    assert (drawn != 100).any()


def test_lines_and_labels_grow_with_the_image() -> None:
    large = np.full((1500, 2000, 3), 100, np.uint8)
    mask = np.zeros(large.shape[:2], bool)
    mask[600:1200, 700:1600] = True
    drawn = _drawn(_instance(mask), rgb=large)
    line = (drawn[900, 650:750] == (255, 64, 64)).all(1)
    assert line.sum() == 4  # and half of each of their neighbours
    assert (drawn[600 - 45 : 590, 705:1000].sum(2) < 60).any()


def test_masks_are_filled_at_about_a_third() -> None:
    black, white = (np.full(GREY.shape, level, np.uint8) for level in (0, 255))
    middle = (70, 80)
    shown = [_drawn(_instance(_square()), rgb=rgb)[middle].astype(int) for rgb in (black, white)]
    np.testing.assert_allclose((shown[1] - shown[0]) / 255, 0.65, atol=0.01)


def _scored(score: float) -> Instance:
    return replace(_instance(_square()), score=score)


def _noted(*instances: Instance, below: float, rgb: NDArray[np.uint8] = GREY) -> NDArray[np.uint8]:
    return np.asarray(draw(rgb, instances, ("cat", "traffic light"), below))


@pytest.mark.parametrize("shape", [(120, 160, 3), (60, 90, 3), (3000, 4000, 3), (1, 1, 3), (1, 300, 3), (300, 1, 3)])
def test_an_image_whose_instances_are_all_below_the_threshold_says_so(shape: tuple[int, int, int]) -> None:
    rgb = np.full(shape, 100, np.uint8)
    noted = _noted(_scored(0.29), _scored(0.1), below=0.3, rgb=rgb)
    assert noted.shape == shape
    assert (noted != 100).any()
    assert (noted[: shape[0] // 3] == 100).all() or min(shape[:2]) == 1
    assert (
        not np.array_equal(noted, _noted(_scored(0.29), below=0.3, rgb=rgb)) or min(shape[:2]) == 1
    )  # the counts differ


def test_the_note_stands_in_the_lower_left_corner_as_white_on_black() -> None:
    noted = _noted(_scored(0.29), below=0.3)
    rows, columns = (np.flatnonzero((noted != 100).any((2, axis))) for axis in (1, 0))
    assert rows.max() == 119
    assert columns.min() == 0
    assert 8 <= len(rows) <= 24
    corner = noted[rows.min() :, : columns.max() + 1]
    assert (corner == 0).all(2).mean() > 0.4
    assert (corner > 200).all(2).mean() > 0.03


def test_there_is_no_note_if_an_instance_is_drawn_or_there_is_none() -> None:
    np.testing.assert_array_equal(_noted(_scored(0.3), _scored(0.29), below=0.3), _noted(_scored(0.3), below=0.0))
    np.testing.assert_array_equal(_noted(below=0.3), GREY)


def test_instances_below_the_threshold_are_counted() -> None:
    assert not_drawn((_scored(0.31), _scored(0.3), _scored(0.29)), 0.3) == 1
    assert not_drawn((), 0.3) == 0


def test_instances_that_are_not_drawn_take_no_colour() -> None:
    found = (_scored(0.9), _scored(0.2))
    np.testing.assert_array_equal(_noted(*found, below=0.3), _noted(found[0], below=0.3))
