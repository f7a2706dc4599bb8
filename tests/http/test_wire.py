"""Parameters of a query or a form, and the classes that they select."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solo_server.errors import InvalidQuery
from solo_server.http.wire import gather, join_form, read_query, result_json
from solo_server.types import ImageResult, Instance, Query, Rle
from support.specs import tiny_spec


def _ids(names: tuple[str, ...], *values: str) -> tuple[int, ...] | None:
    spec = replace(tiny_spec("solo"), class_names=names)
    return read_query({"classes": list(values)}).to_query(spec).class_ids


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (("cat",), (0,)),
        (("cat, 2",), (0, 2)),
        (("cat", "2"), (0, 2)),
        (("dog, small",), (1,)),
        (("dog, small", "cat,2"), (1, 0, 2)),
        ((" dog, small",), None),
        (("1",), (1,)),
        (("cat,0,cat", "0"), (0,)),
    ],
)
def test_a_value_that_is_a_class_name_is_not_split_at_commas(
    values: tuple[str, ...], ids: tuple[int, ...] | None
) -> None:
    names = ("cat", "dog, small", "bird")
    if ids is None:
        with pytest.raises(InvalidQuery, match=r"no class 'dog'.*; repeat `classes` for each name with a comma in it"):
            _ids(names, *values)
    else:
        assert _ids(names, *values) == ids


@given(st.lists(st.text("ab, 01", min_size=1), min_size=1, max_size=5, unique=True))
def test_every_class_can_be_requested_by_its_name(names: list[str]) -> None:
    assert _ids(tuple(names), *names) == tuple(range(len(names)))


def test_a_duplicate_name_means_its_first_class_and_ids_reach_all() -> None:
    assert _ids(("cat", "cat", "dog"), "cat,2", "1") == (0, 2, 1)


def test_digits_are_names_if_the_model_has_such_names() -> None:
    digits = ("1", "2", "3")
    assert _ids(digits, "1,3") == (0, 2)
    for value in ("0", "01", "7"):
        with pytest.raises(InvalidQuery, match=f"no class '{value}'.*this model has class names that are numbers"):
            _ids(digits, value)


@pytest.mark.parametrize("value", ["007", "02", "3", "-1", "+1", "1.0", "\u0662", "2" * 5000, "", " ", ","])
def test_only_a_plain_number_in_range_is_an_id(value: str) -> None:
    with pytest.raises(InvalidQuery, match="classes: the model has no class"):
        _ids(("cat", "dog", "bird"), value)


def test_a_parameter_other_than_classes_is_given_once() -> None:
    for name in ("score_threshold", "max_instances", "nms", "format"):
        with pytest.raises(InvalidQuery, match=f"^{name}: is given 2 times; give it once$"):
            read_query(gather([(name, "1"), (name, "1")]))


def test_single_values_are_read_like_lists_of_one() -> None:
    single = read_query({"classes": "cat", "score_threshold": "0.5", "nms": "mask"})
    assert single == read_query({"classes": ["cat"], "score_threshold": ["0.5"], "nms": ("mask",)})
    assert single.to_query(tiny_spec("solo")) == Query(0.5, None, (0,), "mask")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("scorethreshold", "score_threshold"), ("score-treshold", "score_threshold"), ("Class", "classes"), ("NMS", "nms"),
     ("max_instance", "max_instances")],
)  # fmt: skip
def test_the_problem_of_a_misspelt_parameter_suggests_the_nearest_name(name: str, nearest: str) -> None:
    known = "known are classes, colour_by, format, max_instances, nms, overlay, score_threshold, tolerance"
    with pytest.raises(InvalidQuery) as refused:
        read_query({name: "1"})
    assert refused.value.detail == f"unknown parameter {name!r}; did you mean {nearest}? {known}"
    with pytest.raises(InvalidQuery, match=f"the form field {name!r} is not a parameter; did you mean {nearest}\\?"):
        join_form({}, {name: ["1"]})
    with pytest.raises(InvalidQuery, match=f"^unknown parameter 'speed'; {known}$"):
        read_query({"speed": "red"})


def test_polygons_take_the_place_of_the_mask() -> None:
    ring = Instance(0, 0.5, (0, 0, 3, 3), 8, Rle((3, 3), "0410"))  # all pixels but the middle one
    result = ImageResult((3, 3), (ring,), {"total": 1.0})
    (rle,) = result_json(result, "m", "1", ["cat"])["instances"]
    (polygon,) = result_json(result, "m", "1", ["cat"], read_query({"format": "polygon"}))["instances"]
    assert rle.pop("mask") == {"size": [3, 3], "counts": "0410"}
    assert polygon.pop("polygons") == [[[0, 3, 0, 0, 3, 0, 3, 3], [1, 1, 1, 2, 2, 2, 2, 1]]]
    assert polygon == rle


def test_a_tolerance_needs_polygons() -> None:
    assert read_query({"format": "polygon", "tolerance": "1.5"}).to_query(tiny_spec("solo")) == Query()
    with pytest.raises(InvalidQuery, match=r"^tolerance: is for format=polygon$"):
        read_query({"tolerance": "1.5"}).to_query(tiny_spec("solo"))
