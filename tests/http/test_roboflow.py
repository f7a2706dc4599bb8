"""Roboflow's API below `/roboflow`: its answers have the masks of `POST /segment`, and what it refuses names the member."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from solo_results.rle import encode_rle
from solo_server.errors import InvalidQuery
from solo_server.http.app import create_app
from solo_server.http.roboflow.answer import answer_json
from solo_server.http.roboflow.requests import MAX_VALUES, parse_json, read_infer, read_model_id, read_options
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from solo_server.types import ImageResult, Instance, Rle
from support.images import encoded, smooth_image
from support.serving import serving

MODEL = "tiny-solo"
PNG, OTHER = encoded(smooth_image(90, 121)), encoded(smooth_image(60, 80, seed=3), "JPEG")
INFER = "/roboflow/infer/instance_segmentation"
LOW = 0.05


def sent(image: bytes) -> dict[str, str]:
    return {"type": "base64", "value": base64.b64encode(image).decode()}


def body(*images: bytes, **members: Any) -> dict[str, Any]:
    image = sent(images[0]) if len(images) == 1 else [sent(each) for each in images]
    return {"model_id": MODEL, "image": image, "confidence": LOW, **members}


@pytest.fixture(scope="module")
def http(solo_bundle: Path) -> Iterator[httpx.Client]:
    app = create_app(Pipeline.open(solo_bundle, threads=1), Settings(max_files=3))
    with serving(app) as client:
        yield client


def segmented(http: httpx.Client, image: bytes, **query: Any) -> list[dict[str, Any]]:
    answer = http.post("/segment", content=image, params={"score_threshold": LOW, **query})
    return list(answer.json()["instances"])


def check_equal(answer: dict[str, Any], instances: list[dict[str, Any]]) -> None:
    predictions = answer["predictions"]
    assert len(instances) > 0
    assert [one["rle"] for one in predictions] == [one["mask"] for one in instances]
    assert [one["class"] for one in predictions] == [one["label"] for one in instances]
    assert [one["class_id"] for one in predictions] == [one["class_id"] for one in instances]
    assert [one["confidence"] for one in predictions] == [one["score"] for one in instances]
    boxes = [
        (one["x"] - one["width"] / 2, one["y"] - one["height"] / 2, one["width"], one["height"]) for one in predictions
    ]
    assert boxes == [tuple(one["box_xywh"]) for one in instances]
    assert len({one["detection_id"] for one in predictions}) == len(predictions)


def test_the_registry_lists_a_model_by_name_and_by_version(http: httpx.Client) -> None:
    version = http.get("/model").json()["version"]
    models = http.get("/roboflow/model/registry").json()["models"]
    assert [model["model_id"] for model in models] == [MODEL, f"{MODEL}/{version}"]
    assert {model["task_type"] for model in models} == {"instance-segmentation"}


def test_one_image_is_answered_with_the_masks_of_segment(http: httpx.Client) -> None:
    answer = http.post(INFER, json=body(PNG)).json()
    assert answer["image"] == {"width": 121, "height": 90}
    check_equal(answer, segmented(http, PNG))


def test_without_a_model_id_the_default_model_answers(http: httpx.Client) -> None:
    check_equal(http.post(INFER, json={**body(PNG), "model_id": None}).json(), segmented(http, PNG))
    assert http.post("/roboflow/model/add", json={}).status_code == 200


def test_images_of_an_array_are_answered_in_their_order(http: httpx.Client) -> None:
    answers = http.post(INFER, json=body(PNG, OTHER)).json()
    assert [answer["image"]["width"] for answer in answers] == [121, 80]
    for answer, image in zip(answers, (PNG, OTHER), strict=True):
        check_equal(answer, segmented(http, image))
    assert len(http.post(INFER, json={**body(PNG), "image": [sent(PNG)]}).json()) == 1


def test_version_0_has_the_image_as_the_body_and_the_options_in_the_query(http: httpx.Client) -> None:
    version = http.get("/model").json()["version"]
    text = base64.encodebytes(PNG)  # with line breaks
    for percent in (LOW, 100 * LOW):
        query = {"confidence": percent, "max_detections": 3, "disable_active_learning": "False"}
        answer = http.post(f"/roboflow/{MODEL}/{version}", params=query, content=text)
        check_equal(answer.json(), segmented(http, PNG, max_instances=3))


def test_options_are_those_of_segment(http: httpx.Client) -> None:
    label = segmented(http, PNG)[0]["label"]
    answer = http.post(INFER, json=body(PNG, class_filter=[label], max_detections=2)).json()
    check_equal(answer, segmented(http, PNG, classes=label, max_instances=2))


def test_a_polygon_comes_beside_the_rle_unless_rle_is_asked_for(http: httpx.Client) -> None:
    both = http.post(INFER, json=body(PNG)).json()["predictions"][0]
    alone = http.post(INFER, json=body(PNG, response_mask_format="rle")).json()["predictions"][0]
    assert len(both["points"]) >= 3
    assert both["rle"] == alone["rle"]
    assert "points" not in alone


def test_the_polygon_is_the_outline_of_the_largest_part() -> None:
    mask = np.zeros((9, 12), bool)
    mask[1:7, 2:10] = True
    mask[3:5, 4:6] = False  # a hole
    mask[8, 11] = mask[8, 0] = True  # small parts
    instance = Instance(0, 0.5, (0, 1, 12, 8), int(mask.sum()), Rle((9, 12), encode_rle(mask)))
    empty = Instance(0, 0.4, (0, 0, 0, 0), 0, Rle((9, 12), encode_rle(np.zeros((9, 12), bool))))
    predictions = answer_json(ImageResult((9, 12), (instance, empty)), ["thing"], "polygon")["predictions"]
    assert {(point["x"], point["y"]) for point in predictions[0]["points"]} == {(2, 1), (10, 1), (10, 7), (2, 7)}
    assert predictions[1]["points"] == []
    assert answer_json(ImageResult((9, 12), ()), ["thing"], "polygon")["predictions"] == []


def test_a_data_uri_is_base64_with_a_head(http: httpx.Client) -> None:
    image = {"type": "base64", "value": "data:image/png;base64," + base64.b64encode(PNG).decode()}
    check_equal(http.post(INFER, json={**body(PNG), "image": image}).json(), segmented(http, PNG))


def test_members_that_tune_other_servers_are_ignored(http: httpx.Client) -> None:
    others = {
        "iou_threshold": 0.3,
        "disable_active_learning": False,
        "source": "a" * 100,
        "visualize_predictions": False,
    }
    check_equal(http.post(INFER, json=body(PNG, **others)).json(), segmented(http, PNG))


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model_id": 3}, 422, "model_id: must be a string"),
        ({"model_id": "a/b/c"}, 422, "model_id: must be NAME or NAME/VERSION"),
        ({"model_id": "a/"}, 422, "model_id: must be NAME or NAME/VERSION"),
        ({"model_id": "other"}, 404, "other"),
        ({"model_id": f"{MODEL}/9"}, 404, "9"),
        ({"image": None}, 422, "image: must be an object"),
        ({"image": []}, 422, "image: has 0 images; 1 to 3"),
        ({"image": [sent(PNG)] * 4}, 422, "image: has 4 images; 1 to 3"),
        ({"image": {"type": "numpy", "value": "x"}}, 422, "image.type: 'numpy' is not accepted; send base64 or url"),
        ({"image": {"type": "base64", "value": 3}}, 422, "image.value: must be a string"),
        ({"image": {"type": "base64", "value": "??"}}, 422, "image: value: is not valid base64"),
        ({"image": {"type": "base64", "value": "data:image/png,x"}}, 422, "image: value: a data: URI"),
        ({"image": {"type": "base64", "value": "aGk="}}, 415, "JPEG"),
        ({"image": {"type": "base64", "value": ""}}, 400, "no body"),
        ({"image": [sent(PNG), sent(PNG[:200])]}, 422, "image[1]: "),
        ({"image": {"type": "url", "value": "http://127.0.0.1/x.png"}}, 403, "image: images by URL are switched off"),
        ({"confidence": 101}, 422, "confidence: "),
        ({"confidence": True}, 422, "confidence: "),
        ({"confidence": "worst"}, 422, "confidence: "),
        ({"confidence": []}, 422, "confidence: "),
        ({"max_detections": 0}, 422, "max_detections: "),
        ({"max_detections": 1.5}, 422, "max_detections: "),
        ({"max_detections": 501}, 422, "max_detections: "),
        ({"class_filter": "person"}, 422, "class_filter: must be an array"),
        ({"class_filter": ["nothing like it"]}, 422, "nothing like it"),
        ({"response_mask_format": "png"}, 422, "response_mask_format: must be polygon or rle"),
        ({"visualize_predictions": True}, 422, "POST /segment?format=overlay"),
    ],
)
def test_what_is_refused_is_named_in_the_form_of_this_api(
    http: httpx.Client, change: dict[str, Any], status: int, message: str
) -> None:
    response = http.post(INFER, json={**body(PNG), **change})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert message in response.json()["message"]
    assert {"code", "request_id"} <= set(response.json())


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'"x"', b"\xff", b'{"a":' + b"[" * 2000])
def test_a_body_that_is_no_json_object_is_refused(http: httpx.Client, content: bytes) -> None:
    assert http.post(INFER, content=content).status_code in (400, 422)
    assert http.post("/roboflow/model/add", content=content).status_code in (400, 422)


@pytest.mark.parametrize("fill", [b"[],", b"{},", b"0,"])
def test_json_of_very_many_values_is_refused_before_it_is_parsed(fill: bytes) -> None:
    with pytest.raises(InvalidQuery, match="too many values"):
        parse_json(b'{"a": [' + fill * (MAX_VALUES + 1) + b"0]}")


def test_adding_a_model_in_service_answers_the_registry_and_any_other_404(http: httpx.Client) -> None:
    assert (
        http.post("/roboflow/model/add", json={"model_id": MODEL}).json() == http.get("/roboflow/model/registry").json()
    )
    assert http.post("/roboflow/model/add", json={"model_id": "other"}).status_code == 404


def test_only_get_reads_the_registry(http: httpx.Client) -> None:
    response = http.post("/roboflow/model/registry", content=b"x")
    assert (response.status_code, response.headers["allow"]) == (405, "GET")


def test_a_deadline_of_a_millisecond_is_answered_504(http: httpx.Client) -> None:
    response = http.post(INFER, json=body(PNG, OTHER), headers={"x-request-timeout-ms": "1"})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")


def test_options_that_are_left_out_are_roboflows() -> None:
    assert read_options({}) == read_options(
        {"confidence": "best", "response_mask_format": "polygon", "class_filter": []}
    )
    assert read_options({}).query.score_threshold == 0.4
    assert read_options({"confidence": 1}).query.score_threshold == 1
    assert read_options({"confidence": "40", "max_detections": "7"}).query.max_instances == 7


def test_a_model_id_is_a_name_and_perhaps_a_version() -> None:
    assert (read_model_id(None).name, read_model_id(None).version) == (None, None)
    assert (read_model_id("a").name, read_model_id("a").version) == ("a", None)
    assert (read_model_id("a/1").name, read_model_id("a/1").version) == ("a", "1")


def test_images_are_not_decoded_while_a_body_is_read() -> None:
    read = read_infer({"model_id": "a", "image": {"type": "base64", "value": "no base64"}}, 1)
    assert (read.images[0].value, read.is_list) == ("no base64", False)


def test_a_request_of_several_megabytes_is_parsed_as_a_small_one_is(http: httpx.Client) -> None:
    text = json.dumps({"padding": "x" * (3 << 20), **body(PNG)})
    check_equal(http.post(INFER, content=text).json(), segmented(http, PNG))
