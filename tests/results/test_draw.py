"""Drawings: colours by instance, class or key, labels in order of score, and what is left out."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_results import draw as drawing
from solo_results.draw import draw, letters_size
from solo_results.errors import DamagedMask
from solo_results.palette import colour, text_colour
from solo_results.placing import Place
from solo_results.rle import encode_rle
from solo_results.types import Instance, RleMask

GREY = np.full((120, 160, 3), 100, np.uint8)


def _square(left: int = 60, top: int = 50, side: int = 40, score: float = 0.875, class_id: int = 0) -> Instance:
    mask = np.zeros(GREY.shape[:2], bool)
    mask[top : top + side, left : left + side] = True
    rle = RleMask((120, 160), encode_rle(mask))
    return Instance(("cat", "traffic light")[class_id], class_id, score, (left, top, side, side), side * side, rle)


def _pixels(*instances: Instance, **options: object) -> NDArray[np.uint8]:
    return np.asarray(draw(GREY, instances, **options))  # type: ignore[arg-type]  # tests pass wrong ones too


def _middle(drawn: NDArray[np.uint8], instance: Instance) -> tuple[int, ...]:
    x, y, width, height = instance.box_xywh
    return tuple(drawn[y + height // 2, x + 2 * width // 3].tolist())


def _tinted(key: int) -> tuple[int, ...]:
    return tuple(round(100 + 0.375 * (value - 100)) for value in colour(key))


TWO = (_square(5, 70, 40), _square(100, 70, 40))


def test_an_image_without_instances_is_the_image() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(draw(noise, [])), noise)


@pytest.mark.parametrize(
    ("options", "keys"),
    [({}, (0, 1)), ({"colour_by": "class"}, (0, 0)), ({"colour_keys": (5, 19)}, (5, 19)),
     ({"colour_by": "class", "colour_keys": (2, 3)}, (2, 3))],
)  # fmt: skip
def test_colours_are_those_of_the_rank_the_class_or_the_given_key(
    options: dict[str, object], keys: tuple[int, ...]
) -> None:
    drawn = _pixels(*TWO, captions=("", ""), **options)
    for instance, key in zip(TWO, keys, strict=True):
        np.testing.assert_allclose(_middle(drawn, instance), _tinted(key), atol=2)


def test_a_class_keeps_its_colour_whatever_else_is_in_the_image() -> None:
    light = _square(100, 70, 40, class_id=1)
    both, alone = (_pixels(*each, colour_by="class", captions=[""] * len(each)) for each in ((TWO[0], light), (light,)))
    assert _middle(both, light) == _middle(alone, light)


def test_the_best_instance_is_drawn_on_top() -> None:
    drawn = _pixels(_square(), _square(class_id=1), captions=("", ""))
    alone = _pixels(_square(class_id=1), colour_keys=(1,), captions=("",))
    top = np.array(_middle(drawn, _square())) - np.array(_middle(alone, _square()))
    towards = np.array(colour(0)) - np.array(_middle(alone, _square()))
    np.testing.assert_allclose(top, 0.375 * towards, atol=3)


def test_a_label_is_a_bar_in_the_colour_with_text_of_contrast() -> None:
    drawn = _pixels(_square())
    bar = drawn[50 - 2 - 15 : 50 - 2, 60:100].reshape(-1, 3)
    assert (bar == colour(0)).all(1).mean() > 0.3
    assert (np.abs(bar.astype(int) - text_colour(colour(0))).max(1) < 40).any()


def test_a_caption_takes_the_place_of_class_and_score() -> None:
    same = _pixels(_square(), captions=["cat 0.88"])
    np.testing.assert_allclose(_pixels(_square()), same, atol=160)
    assert (_pixels(_square()) != _pixels(_square(), captions=["cat #7"])).any()


def test_an_empty_caption_is_no_label() -> None:
    drawn = _pixels(_square(), captions=[""])
    assert (drawn[:45] == 100).all()


def test_instances_below_the_threshold_are_not_drawn_and_take_no_colour() -> None:
    found = (_square(5, 70, 40, 0.9), _square(100, 70, 40, 0.2))
    np.testing.assert_array_equal(_pixels(*found, below=0.3), _pixels(found[0], below=0.3))


def test_an_empty_mask_shows_only_its_label() -> None:
    empty = Instance("cat", 0, 0.9, (0, 0, 0, 0), 0, RleMask((120, 160), encode_rle(np.zeros((120, 160), bool))))
    drawn = _pixels(empty)
    assert (drawn[25:] == 100).all()
    assert (drawn[:25] != 100).any()


@pytest.mark.parametrize("hw", [(1, 1), (1, 300), (300, 1), (9, 14)])
def test_images_smaller_than_a_label_are_drawn_too(hw: tuple[int, int]) -> None:
    whole = Instance("cat", 0, 0.9, (0, 0, hw[1], hw[0]), hw[0] * hw[1], RleMask(hw, encode_rle(np.ones(hw, bool))))
    drawn = np.asarray(draw(np.full((*hw, 3), 100, np.uint8), [whole]))
    assert drawn.shape == (*hw, 3)
    assert (drawn != 100).any()


@pytest.mark.parametrize(("hw", "least", "most"), [((150, 200), 8, 9), ((480, 640), 8, 9), ((4000, 6000), 65, 72)])
def test_capital_letters_are_legible_at_every_size(hw: tuple[int, int], least: int, most: int) -> None:
    text = drawing.line(("H",), letters_size(hw))
    height = text.runs[0].opacity.height
    assert least <= height <= most


def test_labels_keep_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[tuple[int, int, int, int]] = []
    place_labels = drawing.place_labels

    def watched(anchors: list[object], sizes: list[tuple[int, int]], *rest: object) -> list[Place | None]:
        places = place_labels(anchors, sizes, *rest)  # type: ignore[arg-type]  # as it was called
        placed.extend((p.left, p.top, p.left + w, p.top + h) for p, (w, h) in zip(places, sizes, strict=True) if p)
        return places

    monkeypatch.setattr(drawing, "place_labels", watched)
    _pixels(*[_square(60 + i, 50 + i, 30, 0.9 - i / 100) for i in range(12)])
    assert len(placed) > 3
    taken = np.zeros(GREY.shape[:2], int)
    for left, top, right, bottom in placed:
        taken[top:bottom, left:right] += 1
    assert taken.max() == 1
    assert taken.sum() == sum((right - left) * (bottom - top) for left, top, right, bottom in placed)


def test_a_label_that_is_moved_away_has_a_leader_to_its_object() -> None:
    crowd = [_square(80, 60, 4, 0.9 - i / 100) for i in range(6)]
    at_object = _pixels(*crowd)[58:66, 78:86].reshape(-1, 3)
    shown = {tuple(pixel) for pixel in at_object.tolist()}
    assert sum(colour(rank) in shown for rank in range(6)) >= 1


def test_a_mask_that_cannot_be_decoded_is_an_error() -> None:
    with pytest.raises(DamagedMask):
        _pixels(replace(_square(), mask=RleMask((120, 160), "1")))


@pytest.mark.parametrize(
    ("rgb", "options", "complaint"),
    [
        (GREY[:100], {}, "mask of instance 0 is"),
        (GREY[..., 0], {}, "the image must be"),
        (GREY.astype(float), {}, "the image must be"),
        (GREY, {"captions": []}, "captions has 0 entries for 1"),
        (GREY, {"colour_keys": [1, 2]}, "colour_keys has 2 entries for 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    rgb: NDArray[np.uint8], options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        draw(rgb, [_square()], **options)  # type: ignore[arg-type]  # wrong on purpose


def test_a_box_that_lies_does_not_leave_the_image() -> None:
    wrong = replace(_square(), box_xywh=(-50, -50, 10_000, 10_000))
    np.testing.assert_array_equal(
        _pixels(wrong, captions=[""])[45:95, 55:105], _pixels(_square(), captions=[""])[45:95, 55:105]
    )
