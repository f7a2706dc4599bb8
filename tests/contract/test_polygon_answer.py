"""`format=polygon`, `coco` and `png`: the same masks as in the RLE answer to the same request."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from solo_client import SoloClient
from solo_results.fill import fill_parts
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving

PNG = encoded(smooth_image(90, 120))
POLYGON = {"format": "polygon"}


@pytest.fixture(scope="module")
def http(solo_bundle: Path) -> Iterator[httpx.Client]:
    with serving(create_app(Pipeline.open(solo_bundle, threads=1), Settings())) as client:
        yield client


def _answer(http: httpx.Client, **query: object) -> Any:
    response = http.post("/segment", content=PNG, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def _masks(answer: Any) -> list[np.ndarray]:
    return [coco_mask.decode(one["mask"]).astype(np.bool_) for one in answer["instances"]]


def _filled(instance: Any) -> np.ndarray:
    """Filled by pycocotools: the exteriors, without the holes."""
    mask = np.zeros((90, 120), np.bool_)
    for exterior, *holes in instance["polygons"]:
        part = coco_mask.decode(coco_mask.frPyObjects([exterior], 90, 120))[..., 0].astype(np.bool_)
        for hole in holes:
            part &= ~coco_mask.decode(coco_mask.frPyObjects([hole], 90, 120))[..., 0].astype(np.bool_)
        mask |= part
    return mask


def test_polygons_have_the_masks_of_the_rle_answer(http: httpx.Client) -> None:
    rle, polygon = _answer(http), _answer(http, **POLYGON)
    assert len(rle["instances"]) > 3
    for one, other, mask in zip(rle["instances"], polygon["instances"], _masks(rle), strict=True):
        np.testing.assert_array_equal(_filled(other), mask)
        del one["mask"], other["polygons"]
        assert one == other
    assert rle.keys() == polygon.keys()


def test_polygons_are_whole_numbers_of_pixels_in_the_image(http: httpx.Client) -> None:
    rings = [ring for one in _answer(http, **POLYGON)["instances"] for part in one["polygons"] for ring in part]
    assert all(type(number) is int for ring in rings for number in ring)
    assert max(max(ring[0::2]) for ring in rings) <= 120
    assert max(max(ring[1::2]) for ring in rings) <= 90


def test_a_tolerance_gives_fewer_points_near_the_exact_outline(http: httpx.Client) -> None:
    exact, simple = _answer(http, **POLYGON), _answer(http, **POLYGON, tolerance=1)
    assert _points(simple) < 0.7 * _points(exact)
    for one, mask in zip(simple["instances"], _masks(_answer(http)), strict=True):
        filled = _filled(one)
        assert (filled & mask).sum() >= 0.8 * (filled | mask).sum()


def test_several_files_and_an_overlay_have_polygons_too(http: httpx.Client) -> None:
    alone = _answer(http, **POLYGON)["instances"]
    form = {"files": [("file", ("a.png", PNG)), ("file", ("b.png", PNG))], "data": POLYGON}
    assert [one["instances"] for one in http.post("/segment", **form).json()["results"]] == [alone, alone]
    drawn = _answer(http, **POLYGON, overlay="true")
    assert drawn["instances"] == alone
    assert drawn["overlay_png"]


def test_coco_results_have_the_masks_and_scores_of_the_rle_answer(http: httpx.Client) -> None:
    rle, results = _answer(http)["instances"], _answer(http, format="coco")
    assert {one["image_id"] for one in results} == {0}
    assert [one["segmentation"] for one in results] == [one["mask"] for one in rle]
    assert [one["score"] for one in results] == [one["score"] for one in rle]
    names = http.get("/model").json()["classes"]
    # cat, dog and traffic light are all COCO's, and have its ids
    assert [one["category_id"] for one in results] == [
        {"cat": 17, "dog": 18, "traffic light": 10}[one["label"]] for one in rle
    ]
    assert names == ["cat", "dog", "traffic light"]


@pytest.mark.parametrize("accept", ["*/*", "image/png", "application/json"])
def test_a_png_has_the_number_of_the_best_instance_at_each_pixel(http: httpx.Client, accept: str) -> None:
    response = http.post("/segment", content=PNG, params={"format": "png"}, headers={"accept": accept})
    assert response.headers["content-type"] == "image/png"
    expected = np.zeros((90, 120), np.uint16)
    for number, mask in reversed(list(enumerate(_masks(_answer(http)), start=1))):
        expected[mask] = number
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(response.content))), expected)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"tolerance": "1"}, "tolerance: is for format=polygon"),
        ({"tolerance": "1", "format": "overlay"}, "tolerance: is for format=polygon"),
        ({"tolerance": "-1", "format": "polygon"}, "tolerance: Input should be greater than or equal to 0"),
        ({"tolerance": "nan", "format": "polygon"}, "tolerance: Input should be"),
        ({"tolerance": "1e9", "format": "polygon"}, "tolerance: Input should be less than or equal to 1000"),
        ({"format": "polygons"}, "format: Input should be 'rle', 'polygon', 'coco', 'png' or 'overlay'"),
        ({"format": "coco", "overlay": "true"}, "overlay: adds the PNG to our own JSON"),
    ],
)
def test_an_impossible_query_is_refused(http: httpx.Client, query: dict[str, str], detail: str) -> None:
    answer = http.post("/segment", content=PNG, params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_query")
    assert detail in answer.json()["detail"]


@pytest.mark.parametrize("name", ["coco", "png"])
def test_coco_and_png_are_for_one_image_a_request(http: httpx.Client, name: str) -> None:
    form = {"files": [("file", ("a.png", PNG)), ("file", ("b.png", PNG))], "params": {"format": name}}
    answer = http.post("/segment", **form)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_query")
    assert http.post("/segment", files={"file": ("a.png", PNG)}, params={"format": name}).status_code == 200


def test_the_answers_match_the_schema(http: httpx.Client) -> None:
    segment = http.get("/openapi.json").json()["paths"]["/segment"]["post"]
    schema = segment["responses"]["200"]["content"]["application/json"]["schema"]
    for query in ({}, POLYGON, {"format": "coco"}):
        answer = _answer(http, **query)
        jsonschema_rs.validate(schema, answer)
        broken = answer[0] if query.get("format") == "coco" else answer["instances"][0]
        broken["score"] = 2
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(schema, answer)


def test_the_clients_polygons_are_the_servers(http: httpx.Client) -> None:
    with SoloClient(str(http.base_url)) as client:
        result = client.segment(PNG)
    expected = [one["polygons"] for one in _answer(http, **POLYGON)["instances"]]
    assert [[part.to_flat() for part in parts] for parts in result.polygons()] == expected
    assert [part.to_flat() for part in result.instances[0].polygons()] == expected[0]
    for parts, instance in zip(result.polygons(), result.instances, strict=True):
        assert fill_parts([part.rings for part in parts], (90, 120)).counts == instance.mask.counts


def _points(answer: Any) -> int:
    return sum(len(ring) for one in answer["instances"] for part in one["polygons"] for ring in part)
