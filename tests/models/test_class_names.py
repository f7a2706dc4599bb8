"""Class names of a checkpoint are kept as they are; what cannot be used is reported in one sentence."""

from typing import Any

import pytest
from solo_models.class_names import chosen_names, equal_names
from solo_models.coco import COCO_CLASSES

UNDERSCORED = tuple(name.replace(" ", "_") for name in COCO_CLASSES)  # as mmdet 1.x and the official code write them


@pytest.mark.parametrize(
    "names",
    [("row_roof", "row roof"), ("_background_", "dent"), ("traffic_light", "person"), ("a, b", "0"), ("凹み", " é ")],
)
def test_names_are_kept_as_they_are(names: tuple[str, ...]) -> None:
    assert chosen_names(2, [names]) == (names, None)
    assert chosen_names(2, [list(names)]) == (names, None)


def test_cocos_names_with_underscores_become_cocos() -> None:
    assert UNDERSCORED[9] == "traffic_light"
    assert chosen_names(80, [UNDERSCORED]) == (COCO_CLASSES, None)
    assert chosen_names(80, [COCO_CLASSES]) == (COCO_CLASSES, None)


def test_a_list_that_differs_from_cocos_by_one_name_is_kept() -> None:
    others = (*UNDERSCORED[:-1], "tooth_brush")
    assert chosen_names(80, [others]) == (others, None)


def test_eighty_classes_without_names_are_cocos_and_others_are_numbered() -> None:
    assert chosen_names(80, []) == (COCO_CLASSES, None)
    assert chosen_names(2, []) == (("class 0", "class 1"), None)


def test_a_string_is_the_name_of_one_class() -> None:
    """mmdet's `CLASSES = ("dent")` lacks the comma of a tuple."""
    assert chosen_names(1, ["dent"]) == (("dent",), None)
    assert chosen_names(1, ["dent, scratch"]) == (("dent, scratch",), None)


def test_of_several_lists_the_one_with_the_right_number_is_used() -> None:
    assert chosen_names(2, [("a", "b", "c"), ("d", "e")]) == (("d", "e"), None)


@pytest.mark.parametrize(
    ("count", "noted", "problem"),
    [
        (
            1,
            ("a", "b"),
            "the network has 1 class, and the file has 2 names (a, b) for them: not used; classes are called class 0; ",
        ),
        (
            2,
            ("a",),
            "the network has 2 classes, and the file has 1 name (a) for them: not used; classes are called class 0 to class 1; ",
        ),
        (3, "dent", "the network has 3 classes, and the file has 1 name (dent) for them: "),
        (2, tuple("abcdefg"), "the network has 2 classes, and the file has 7 names (a, b, c, d, e, ...) for them: "),
        (
            2,
            {"a": 0, "b": 1},
            "the network has 2 classes, and the file has a dict instead of a list of names for them: ",
        ),
        (2, [0, 1], "the network has 2 classes, and the file has names that are not strings for them: "),
        (2, "\x1b[2J", "the network has 2 classes, and the file has 1 name (?[2J) for them: "),
    ],
)
def test_names_of_the_wrong_number_or_type_are_reported_and_not_used(count: int, noted: Any, problem: str) -> None:
    names, sentence = chosen_names(count, [noted])
    assert names == tuple(f"class {i}" for i in range(count))
    assert sentence is not None
    assert sentence.startswith(problem)
    assert sentence.endswith("; --classes FILE gives them names")


def test_eighty_classes_with_a_wrong_list_do_not_get_cocos_names() -> None:
    names, sentence = chosen_names(80, [("dent", "scratch")])
    assert names[0] == "class 0"
    assert sentence is not None


def test_a_report_of_long_names_is_short() -> None:
    _, sentence = chosen_names(2, [("x" * 100_000,)])
    assert sentence is not None
    assert len(sentence) < 400


def test_the_first_two_classes_with_the_same_name_are_reported() -> None:
    assert equal_names(("a", "b", "A", "a ")) is None
    assert equal_names(("a", "b", "c", "b", "a")) == "class names must differ: classes 1 and 3 are both called 'b'"
