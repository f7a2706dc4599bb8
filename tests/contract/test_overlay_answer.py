"""`overlay=true`: one answer with the instances and the image that they are drawn on, from one inference."""

from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import numpy as np
import pytest
from PIL import Image
from solo_client import ImageDamaged, SoloClient
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving

PNG = encoded(smooth_image(90, 120))
OVERLAY = {"overlay": "true"}


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def http(pipeline: Pipeline) -> Iterator[httpx.Client]:
    with serving(create_app(pipeline, Settings())) as client:
        yield client


@pytest.fixture
def inferred(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each inference."""
    calls, infer = [], pipeline.infer

    def count(*arguments: Any) -> Any:
        calls.append(1)
        return infer(*arguments)

    monkeypatch.setattr(pipeline, "infer", count)
    return calls


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)))


def test_the_instances_and_the_overlay_come_from_one_inference(http: httpx.Client, inferred: list[int]) -> None:
    answer = http.post("/segment", content=PNG, params=OVERLAY).json()
    assert len(inferred) == 1
    png = b64decode(answer.pop("overlay_png"), validate=True)
    alone = http.post("/segment", content=PNG).json()
    assert {**answer, "timings_ms": None} == {**alone, "timings_ms": None}
    np.testing.assert_array_equal(_pixels(png), _pixels(http.post("/segment?format=overlay", content=PNG).content))
    assert {i["score"] >= 0.3 for i in answer["instances"]} == {True, False}  # so that the threshold matters


@pytest.mark.parametrize("threshold", [0.02, 0.2, 1])
def test_a_threshold_applies_to_the_answer_and_the_overlay(http: httpx.Client, threshold: float) -> None:
    query = {"score_threshold": threshold, "max_instances": 3}
    answer = http.post("/segment", content=PNG, params=query | OVERLAY).json()
    drawn = http.post("/segment", content=PNG, params=query | {"format": "overlay"})
    assert answer["instances"] == http.post("/segment", content=PNG, params=query).json()["instances"]
    np.testing.assert_array_equal(_pixels(b64decode(answer["overlay_png"])), _pixels(drawn.content))


@pytest.mark.parametrize("threshold", [0.02, 0.05, 0.3, 0.7, 1])
def test_an_overlay_does_not_change_the_instances_at_any_threshold(http: httpx.Client, threshold: float) -> None:
    plain, drawn = (
        http.post("/segment", content=PNG, params={"score_threshold": threshold} | more).json()
        for more in ({}, OVERLAY)
    )
    assert drawn["instances"] == plain["instances"]


def test_an_instance_whose_score_equals_the_threshold_is_kept(
    http: httpx.Client, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = float(np.float32(0.7))  # below 0.7
    segment = pipeline.finish

    def finish(*arguments: Any) -> Any:
        result = segment(*arguments)
        return replace(result, instances=(replace(result.instances[0], score=score),))

    monkeypatch.setattr(pipeline, "finish", finish)
    answer = http.post("/segment", content=PNG, params={"score_threshold": 0.7} | OVERLAY).json()
    assert len(answer["instances"]) == 1


def test_one_file_of_a_form_has_its_overlay(http: httpx.Client) -> None:
    form = http.post("/segment", files={"file": ("a.png", PNG)}, params=OVERLAY).json()
    assert form["overlay_png"] == http.post("/segment", content=PNG, params=OVERLAY).json()["overlay_png"]


@pytest.mark.parametrize(
    ("request_", "detail"),
    [
        ({"files": [("f", ("a.png", PNG)), ("f", ("b.png", PNG))], "params": OVERLAY}, "one image at a time"),
        ({"content": PNG, "params": OVERLAY | {"format": "overlay"}}, "overlay: adds the PNG to a JSON answer"),
        ({"content": PNG, "params": OVERLAY, "headers": {"accept": "image/png"}}, "overlay: adds the PNG to a JSON"),
        ({"content": PNG, "params": {"overlay": "drawn.png"}}, "overlay: "),
    ],
)
def test_an_impossible_request_for_an_overlay_is_refused(
    http: httpx.Client, request_: dict[str, Any], detail: str
) -> None:
    answer = http.post("/segment", **request_)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_query")
    assert detail in answer.json()["detail"]


def test_overlay_false_is_the_default(http: httpx.Client) -> None:
    assert "overlay_png" not in http.post("/segment", content=PNG, params={"overlay": "false"}).json()


def test_the_openapi_document_has_the_overlay(http: httpx.Client) -> None:
    segment = http.get("/openapi.json").json()["paths"]["/segment"]["post"]
    (parameter,) = [one for one in segment["parameters"] if one["name"] == "overlay"]
    assert parameter["schema"]["type"] == "boolean"
    schema = segment["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema_rs.validate(schema, http.post("/segment", content=PNG, params=OVERLAY).json())


def test_instances_of_a_class_can_have_one_colour(http: httpx.Client) -> None:
    by_instance, by_class = (
        http.post(
            "/segment", content=PNG, params={"format": "overlay", "colour_by": by, "score_threshold": 0.05}
        ).content
        for by in ("instance", "class")
    )
    assert (_pixels(by_instance) != _pixels(by_class)).any()
    answer = http.post("/segment", content=PNG, params=OVERLAY | {"colour_by": "class", "score_threshold": 0.05}).json()
    np.testing.assert_array_equal(_pixels(b64decode(answer["overlay_png"])), _pixels(by_class))


def test_a_colour_by_anything_else_is_refused(http: httpx.Client) -> None:
    refused = http.post("/segment", content=PNG, params={"format": "overlay", "colour_by": "score"})
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("colour_by: ")


def test_v2_has_no_overlay(http: httpx.Client) -> None:
    tensor = {"name": "PIXELS", "datatype": "UINT8", "shape": [2, 2, 3], "data": [0] * 12}
    body = {"inputs": [tensor], "parameters": {"overlay": "true"}}
    answer = http.post("/v2/models/tiny-solo/infer", json=body)
    assert answer.status_code == 422
    assert "overlay" in answer.json()["error"]


def test_the_client_gets_both_from_one_request(http: httpx.Client, inferred: list[int]) -> None:
    with SoloClient(str(http.base_url)) as client:
        result, png = client.segment_and_draw(PNG, classes=["cat"])
        assert len(inferred) == 1
        assert result.instances == client.segment(PNG, classes=["cat"]).instances
        np.testing.assert_array_equal(_pixels(png), _pixels(client.overlay(PNG, classes=["cat"])))
        assert result.image == PNG
        np.testing.assert_array_equal(np.asarray(result.draw()), _pixels(png))
        with pytest.raises(ImageDamaged):
            client.segment_and_draw(PNG[:300])
