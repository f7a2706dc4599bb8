"""Records, and the strict parsing of the wire format."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from solo_client import ImageDamaged, Result, UnexpectedAnswer, UnknownCategory
from solo_client.wire import parse_json, parse_problem, parse_result, parse_results

Json = dict[str, Any]  # tests take responses apart and damage them


def _damaged(answer: Json, path: list[str | int], value: object) -> Json:
    """A copy of the response with the part at `path` replaced; `...` removes it."""
    changed = copy.deepcopy(answer)
    parent: Any = changed
    for step in path[:-1]:
        parent = parent[step]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return changed


def test_a_response_becomes_a_result(answer: Json) -> None:
    result = parse_result(answer)
    assert (result.width, result.height) == (3, 2)
    assert (result.model_name, result.model_version) == ("demo-person", "0123456789ab")
    assert result.timings_ms["infer"] == 30.5
    (instance,) = result.instances
    assert (instance.label, instance.class_id, instance.score, instance.area) == ("person", 0, 0.93, 2)
    assert instance.box_xywh == (0, 0, 1, 2)
    assert instance.mask_array().tolist() == [[True, False, False], [True, False, False]]


def test_a_result_converts_back_to_the_same_response(answer: Json) -> None:
    assert json.loads(json.dumps(parse_result(answer).to_dict())) == answer


def test_unknown_members_are_ignored(answer: Json) -> None:
    newer = answer | {"filename": "a.jpg", "image": answer["image"] | {"depth": 3}}
    assert parse_result(newer) == parse_result(answer)


def test_masks_are_stacked_in_the_order_of_instances(answer: Json) -> None:
    other = _damaged(answer, ["instances", 0, "mask", "counts"], "6")["instances"][0]
    masks = parse_result(answer | {"instances": [other, *answer["instances"]]}).masks()
    assert masks.shape == (2, 2, 3)
    assert masks.sum(axis=(1, 2)).tolist() == [0, 2]


def test_masks_without_instances_keep_their_size(answer: Json) -> None:
    masks = parse_result(answer | {"instances": []}).masks()
    assert masks.shape == (0, 2, 3)
    assert masks.dtype == np.dtype(bool)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (["image"], ..., "image"),
        (["image"], [], "image"),
        (["image", "width"], ..., "image.width"),
        (["image", "width"], 3.0, "image.width"),
        (["image", "height"], 0, "image.height"),
        (["model", "name"], None, "model.name"),
        (["model", "version"], 7, "model.version"),
        (["timings_ms"], 33.8, "timings_ms"),
        (["timings_ms", "total"], ..., "timings_ms.total"),
        (["timings_ms", "infer"], "fast", "timings_ms.infer"),
        (["timings_ms", "infer"], -0.1, "timings_ms.infer"),
        (["timings_ms", "infer"], 10**400, "timings_ms.infer"),
        (["instances"], {}, "instances"),
        (["instances", 0], "person", "instances[0]"),
        (["instances", 0, "label"], 1, "instances[0].label"),
        (["instances", 0, "class_id"], True, "instances[0].class_id"),
        (["instances", 0, "class_id"], -1, "instances[0].class_id"),
        (["instances", 0, "score"], 1.01, "instances[0].score"),
        (["instances", 0, "score"], float("nan"), "instances[0].score"),
        (["instances", 0, "score"], True, "instances[0].score"),
        (["instances", 0, "box_xywh"], [0, 0, 1], "instances[0].box_xywh"),
        (["instances", 0, "box_xywh", 2], 1.5, "instances[0].box_xywh[2]"),
        (["instances", 0, "area"], ..., "instances[0].area"),
        (["instances", 0, "mask"], "024", "instances[0].mask"),
        (["instances", 0, "mask", "size"], [3, 2], "instances[0].mask.size"),
        (["instances", 0, "mask", "counts"], [0, 2, 4], "instances[0].mask.counts"),
    ],
)
def test_a_malformed_part_is_named(answer: Json, path: list[str | int], value: object, field: str) -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        parse_result(_damaged(answer, path, value))
    assert caught.value.field == field
    assert field in str(caught.value)


@pytest.mark.parametrize("whole", [None, [], "x", 3])
def test_a_response_that_is_not_an_object_is_refused(whole: object) -> None:
    with pytest.raises(UnexpectedAnswer, match="body should be an object"):
        parse_result(whole)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe{}", b'{"score": NaN}', b'{"a": Infinity}', b"[" * 200_000])
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(UnexpectedAnswer, match="body is not JSON"):
        parse_json(body)


def test_a_long_wrong_value_is_shown_shortened() -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        parse_result("x" * 10_000)
    assert len(str(caught.value)) < 150


def test_results_of_several_images_keep_their_order_and_errors(answer: Json, problem: Callable[..., Json]) -> None:
    failed = {"filename": "b.jpg", "error": problem("image_damaged", 400)}
    first, second = parse_results({"results": [answer | {"filename": "a.jpg"}, failed]}, 2)
    assert isinstance(first, Result)
    assert isinstance(second, ImageDamaged)


def test_one_image_sent_together_is_answered_like_one_alone(answer: Json) -> None:
    assert parse_results(answer, 1) == [parse_result(answer)]


def test_a_missing_result_is_reported(answer: Json) -> None:
    with pytest.raises(UnexpectedAnswer, match="results should be a list of 2"):
        parse_results({"results": [answer]}, 2)


def test_a_malformed_part_of_one_of_several_results_is_named(answer: Json, problem: Callable[..., Json]) -> None:
    failed = {"error": _damaged(problem("internal", 500), ["code"], 5)}
    with pytest.raises(UnexpectedAnswer, match=r"results\[1\]\.error\.code should be a string"):
        parse_results({"results": [answer, failed]}, 2)


@pytest.mark.parametrize("name", ["type", "title", "status", "detail", "code", "request_id"])
def test_a_problem_needs_each_of_its_members(problem: Callable[..., Json], name: str) -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        parse_problem(_damaged(problem("internal", 500), [name], ...))
    assert caught.value.field == name


def test_coco_results_have_no_box(answer: Json) -> None:
    assert parse_result(answer).to_coco(139) == [
        {"image_id": 139, "category_id": 1, "score": 0.93, "segmentation": {"size": [2, 3], "counts": "024"}}
    ]


def test_coco_results_take_the_given_category_ids(answer: Json) -> None:
    assert parse_result(answer).to_coco(1, {"person": 18})[0]["category_id"] == 18


def test_a_label_without_a_category_id_is_named(answer: Json) -> None:
    with pytest.raises(UnknownCategory, match="'person'"):
        parse_result(answer).to_coco(1, {"dog": 18})


def test_pycocotools_loads_the_results_with_the_area_of_the_mask(answer: Json, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(parse_result(answer).to_coco(1)))
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": []}
        truth.createIndex()
        loaded = truth.loadRes(str(file))
    assert loaded.anns[1]["area"] == 2
