"""Overlays of the server: its instances and class names drawn as `solo_results.draw` draws them, in PNG."""

import io
import logging

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from solo_results import types as results
from solo_results.draw import draw
from solo_server.pipeline import overlay
from solo_server.pipeline.overlay import draw_png, not_drawn
from solo_server.types import Instance, Rle

GREY = np.full((120, 160, 3), 100, np.uint8)
NAMES = ("cat", "traffic light")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    overlay._log_unreadable.cache_clear()


def _instance(score: float = 0.875, class_id: int = 0, left: int = 60) -> Instance:
    mask = np.zeros(GREY.shape[:2], bool)
    mask[50:90, left : left + 40] = True
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    rle = Rle((120, 160), encoded["counts"].decode())
    return Instance(class_id, score, (left, 50, 40, 40), 1600, rle)


def _record(instance: Instance) -> results.Instance:
    mask = results.RleMask(instance.mask.size, instance.mask.counts)
    return results.Instance(
        NAMES[instance.class_id], instance.class_id, instance.score, instance.box_xywh, instance.area, mask
    )


def _drawn(*instances: Instance, rgb: NDArray[np.uint8] = GREY, **options: object) -> NDArray[np.uint8]:
    png = draw_png(rgb, instances, NAMES, **options)  # type: ignore[arg-type]  # options of draw_png
    assert png.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(png)))


def test_an_image_without_instances_is_the_image() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    np.testing.assert_array_equal(_drawn(rgb=noise), noise)


@pytest.mark.parametrize("colour_by", ["instance", "class"])
def test_an_overlay_is_the_drawing_of_its_instances_and_class_names(colour_by: str) -> None:
    found = (_instance(0.9), _instance(0.8, 1, 10), _instance(0.2, 0, 110))
    expected = draw(GREY, [_record(each) for each in found], colour_by, 0.3)  # type: ignore[arg-type]  # both are its values
    np.testing.assert_array_equal(_drawn(*found, below=0.3, colour_by=colour_by), np.asarray(expected))


def test_colours_by_class_are_those_of_the_class() -> None:
    first, second = _instance(0.9, 0, 10), _instance(0.8, 0, 110)
    by_class, by_instance = (_drawn(first, second, colour_by=by)[70, (30, 130)] for by in ("class", "instance"))
    np.testing.assert_array_equal(by_class[0], by_class[1])
    assert (by_instance[0] != by_instance[1]).any()


def test_the_given_image_is_not_changed() -> None:
    rgb = GREY.copy()
    _drawn(_instance(), rgb=rgb)
    np.testing.assert_array_equal(rgb, GREY)


@pytest.mark.parametrize("shape", [(120, 160, 3), (60, 90, 3), (3000, 4000, 3), (1, 1, 3), (1, 300, 3), (300, 1, 3)])
def test_an_image_whose_instances_are_all_below_the_threshold_says_so(shape: tuple[int, int, int]) -> None:
    rgb = np.full(shape, 100, np.uint8)
    rle = coco_mask.encode(np.asfortranarray(np.zeros(shape[:2], np.uint8)))["counts"].decode()
    faint = [Instance(0, score, (0, 0, 0, 0), 0, Rle(shape[:2], rle)) for score in (0.29, 0.1)]
    noted, fewer = (_drawn(*found, rgb=rgb, below=0.3) for found in (faint, faint[:1]))
    assert noted.shape == shape
    assert (noted != 100).any()
    assert (noted[: shape[0] // 3] == 100).all() or min(shape[:2]) == 1
    assert not np.array_equal(noted, fewer) or min(shape[:2]) == 1  # the counts differ


def test_the_note_stands_in_the_lower_left_corner_as_white_on_black() -> None:
    noted = _drawn(_instance(0.29), below=0.3)
    rows, columns = (np.flatnonzero((noted != 100).any((2, axis))) for axis in (1, 0))
    assert rows.max() == 119
    assert columns.min() == 0
    assert 8 <= len(rows) <= 24
    corner = noted[rows.min() :, : columns.max() + 1]
    assert (corner == 0).all(2).mean() > 0.4
    assert (corner > 200).all(2).mean() > 0.03


def test_there_is_no_note_if_an_instance_is_drawn_or_there_is_none() -> None:
    np.testing.assert_array_equal(_drawn(_instance(0.3), _instance(0.29), below=0.3), _drawn(_instance(0.3), below=0.0))
    np.testing.assert_array_equal(_drawn(below=0.3), GREY)


def test_instances_below_the_threshold_are_counted() -> None:
    assert not_drawn((_instance(0.31), _instance(0.3), _instance(0.29)), 0.3) == 1
    assert not_drawn((), 0.3) == 0


def test_names_that_no_font_can_draw_are_logged_once_for_a_model(caplog: pytest.LogCaptureFixture) -> None:
    names = ("cat", "𒀀𒀁", "dog 🛸", "কুকুর")
    with caplog.at_level(logging.WARNING, "solo_server"):
        draw_png(GREY, (), names)
        draw_png(GREY, (_instance(),), names)
    assert [record.getMessage() for record in caplog.records] == [
        "overlays show 3 of 4 classes by their ids, because no bundled font can draw their names: "
        "#1 '𒀀𒀁', #2 'dog 🛸', #3 'কুকুর'"
    ]


def test_the_log_names_a_few_of_many_names(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "solo_server"):
        draw_png(GREY, (), tuple("𒀀" * n for n in range(1, 1204)))
    (record,) = caplog.records
    assert "1203 of 1203" in record.getMessage()
    assert len(record.getMessage()) < 300


def test_names_that_can_be_drawn_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    draw_png(GREY, (), ("cat", "猫", "#2"))
    assert not caplog.records
