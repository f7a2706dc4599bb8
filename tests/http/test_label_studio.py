"""Label Studio's ML backend below `/label-studio`: its regions have the masks of `POST /segment`."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from solo_results.rle import encode_rle
from solo_server.errors import InvalidQuery, SettingsError
from solo_server.http.app import create_app
from solo_server.http.image_urls import ImageUrls
from solo_server.http.label_studio.images import TaskImages
from solo_server.http.label_studio.labelling_config import read_labelling_config
from solo_server.http.label_studio.requests import MAX_TASKS, read_predict
from solo_server.http.label_studio.results import MAX_RINGS, prediction_json
from solo_server.http.url_rules import AllowList
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from solo_server.types import ImageResult, Instance, Rle
from support.brush import decode_brush
from support.images import encoded, smooth_image
from support.serving import serving

MODEL = "tiny-solo"
HEIGHT, WIDTH = 90, 121
PNG = encoded(smooth_image(HEIGHT, WIDTH))
OTHER = encoded(smooth_image(60, 80, seed=3), "JPEG")
LOW = 0.05


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def http(pipeline: Pipeline) -> Iterator[httpx.Client]:
    with serving(create_app(pipeline, Settings(max_waiting=8))) as client:
        yield client


def uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def config(http: httpx.Client, *kinds: str, threshold: float = LOW) -> str:
    labels = "".join(f'<Label value="{name}"/>' for name in http.get("/model").json()["classes"])
    tags = [
        f'<{kind} name="of-{kind}" toName="image" model_score_threshold="{threshold}">{labels}</{kind}>'
        for kind in kinds
    ]
    return f'<View><Image name="image" value="$photo"/>{"".join(tags)}</View>'


def ask(http: httpx.Client, *uris: Any, path: str = "/label-studio/predict", **members: Any) -> httpx.Response:
    tasks = [{"id": i, "data": {"photo": each}} for i, each in enumerate(uris)]
    return http.post(
        path, json={"tasks": tasks, "label_config": config(http, "BrushLabels"), "project": "1", **members}
    )


def even_odd(ring: np.ndarray) -> np.ndarray:
    """The pixels of the image whose centre is inside of a ring `(P, 2)`, by crossings of a ray to the right."""
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y1 != y2:
            inside ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


def segmented(http: httpx.Client, image: bytes, **query: Any) -> list[dict[str, Any]]:
    answer = http.post("/segment", content=image, params={"score_threshold": LOW, **query})
    return list(answer.json()["instances"])


def check_brushes(prediction: dict[str, Any], instances: list[dict[str, Any]]) -> None:
    """Masks pixel by pixel, labels and scores."""
    instances = [instance for instance in instances if instance["area"]]
    assert len(instances) > 0
    regions = prediction["result"]
    assert [region["value"]["brushlabels"] for region in regions] == [[one["label"]] for one in instances]
    assert [region["score"] for region in regions] == [one["score"] for one in instances]
    for region, instance in zip(regions, instances, strict=True):
        height, width = instance["mask"]["size"]
        assert (region["original_height"], region["original_width"]) == (height, width)
        assert (region["type"], region["value"]["format"]) == ("brushlabels", "rle")
        mask = decode_brush(region["value"]["rle"], height, width)
        assert (mask == coco_mask.decode(instance["mask"]).astype(bool)).all()
    assert prediction["score"] == pytest.approx(sum(one["score"] for one in instances) / len(instances), abs=1e-6)


def test_brushes_are_the_masks_of_segment_pixel_by_pixel(http: httpx.Client) -> None:
    prediction = ask(http, uri(PNG)).json()["results"][0]
    check_brushes(prediction, segmented(http, PNG))
    model = http.get("/model").json()
    assert prediction["model_version"] == f"{MODEL}/{model['version']}"
    assert len({region["id"] for region in prediction["result"]}) == len(prediction["result"])
    assert {(region["from_name"], region["to_name"]) for region in prediction["result"]} == {
        ("of-BrushLabels", "image")
    }


def test_tasks_are_answered_in_their_order_and_one_that_fails_has_its_error(http: httpx.Client) -> None:
    results = ask(http, uri(PNG), uri(b"no image"), uri(OTHER), None).json()["results"]
    check_brushes(results[0], segmented(http, PNG))
    check_brushes(results[2], segmented(http, OTHER))
    assert [set(result) for result in (results[1], results[3])] == [{"error"}, {"error"}]
    assert results[1]["error"]["code"] == "unsupported_media_type"
    assert "tasks[3].data.photo" in results[3]["error"]["detail"]


def test_more_tasks_than_the_queue_holds_are_answered_all(http: httpx.Client) -> None:
    results = ask(http, *[uri(OTHER)] * 12).json()["results"]
    assert len(results) == 12
    assert all(result["result"] for result in results)


def test_the_failure_of_a_task_alone_is_that_of_the_request(http: httpx.Client) -> None:
    assert ask(http, uri(b"no image")).status_code == 415
    response = ask(http, "http://127.0.0.1/x.png")
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"


def test_rectangles_are_the_boxes_in_percent(http: httpx.Client) -> None:
    regions = ask(http, uri(PNG), label_config=config(http, "RectangleLabels")).json()["results"][0]["result"]
    boxes = [one["box_xywh"] for one in segmented(http, PNG) if one["area"]]
    for region, (x, y, width, height) in zip(regions, boxes, strict=True):
        value = region["value"]
        assert (value["x"] * WIDTH / 100, value["y"] * HEIGHT / 100) == pytest.approx((x, y))
        assert (value["width"] * WIDTH / 100, value["height"] * HEIGHT / 100) == pytest.approx((width, height))


def test_polygons_enclose_the_pixels_of_the_masks(http: httpx.Client) -> None:
    regions = ask(http, uri(PNG), label_config=config(http, "PolygonLabels")).json()["results"][0]["result"]
    filled: dict[tuple[str, float], np.ndarray] = {}
    for region in regions:
        assert region["value"]["closed"]
        ring = np.array(region["value"]["points"]) * (WIDTH / 100, HEIGHT / 100)
        assert ring == pytest.approx(ring.round())
        mask = filled.setdefault(
            (region["value"]["polygonlabels"][0], region["score"]), np.zeros((HEIGHT, WIDTH), bool)
        )
        mask ^= even_odd(ring.round())
    instances = [one for one in segmented(http, PNG) if one["area"]]
    assert len({(one["label"], one["score"]) for one in instances}) == len(instances)
    for instance in instances:
        expected = coco_mask.decode(instance["mask"]).astype(bool)
        assert (filled[instance["label"], instance["score"]] == expected).all()


def test_noise_has_a_bounded_number_of_polygons(http: httpx.Client) -> None:
    mask = np.zeros((64, 64), bool)
    mask[::2, ::2] = True
    mask[40:44] = True
    counts = encode_rle(mask)
    instance = Instance(0, 0.9, (0, 0, 64, 64), int(mask.sum()), Rle((64, 64), counts))
    tag = read_labelling_config(config(http, "PolygonLabels"))[0]
    name = http.get("/model").json()["classes"][0]
    regions = prediction_json(ImageResult((64, 64), (instance,)), [tag], [name], "v")["result"]
    assert len(regions) == MAX_RINGS
    assert max(len(region["value"]["points"]) for region in regions) > 8  # the band is among them


def test_a_threshold_holds_for_its_tag_and_classes_without_a_label_are_left_out(http: httpx.Client) -> None:
    instances = segmented(http, PNG)
    middle, label = instances[len(instances) // 2]["score"], instances[0]["label"]
    text = (
        config(http, "BrushLabels", threshold=middle).replace("</View>", "")
        + config(http, "RectangleLabels")[config(http, "RectangleLabels").index("<Rect") :]
    )
    kinds = [region["type"] for region in ask(http, uri(PNG), label_config=text).json()["results"][0]["result"]]
    assert 0 < kinds.count("brushlabels") < kinds.count("rectanglelabels")
    only = f'<View><Image name="i" value="$photo"/><BrushLabels name="b" toName="i" model_score_threshold="{LOW}">'
    only += f'<Label value="{label}"/></BrushLabels></View>'
    check_brushes(ask(http, uri(PNG), label_config=only).json()["results"][0], segmented(http, PNG, classes=label))


def test_health_setup_versions_and_webhook_are_answered(http: httpx.Client) -> None:
    version = f"{MODEL}/{http.get('/model').json()['version']}"
    for path in ("/label-studio", f"/label-studio/{MODEL}"):
        assert http.get(f"{path}/health").json() == {"status": "UP"}
        assert http.get(f"{path}/versions").json() == {"versions": [version]}
        body = {"schema": config(http, "BrushLabels"), "hostname": "http://127.0.0.1:8080", "access_token": "x"}
        assert http.post(f"{path}/setup", json=body).json() == {"model_version": version}
        assert http.post(f"{path}/webhook", json={"action": "START_TRAINING"}).json() == {}
        assert ask(http, uri(PNG), path=f"{path}/predict").status_code == 200
    assert http.get("/label-studio/other/health").status_code == 404
    assert http.post("/label-studio/other/setup", json={"schema": config(http, "BrushLabels")}).status_code == 404


def test_a_configuration_without_a_class_of_the_model_is_refused_with_advice(http: httpx.Client) -> None:
    text = config(http, "BrushLabels")
    for name in http.get("/model").json()["classes"]:
        text = text.replace(f'"{name}"', f'"other {name}"')
    for response in (http.post("/label-studio/setup", json={"schema": text}), ask(http, uri(PNG), label_config=text)):
        assert response.status_code == 422
        assert "predicted_values" in response.json()["detail"]


def test_health_and_setup_are_answered_while_models_are_loaded(pipeline: Pipeline) -> None:
    app = create_app(pipeline)
    service = app.state.service

    async def never() -> None:
        """The model is not loaded in this test."""

    service.start = never
    text = '<View><Image name="i" value="$i"/><BrushLabels name="b" toName="i"><Label value="x"/></BrushLabels></View>'
    with serving(app, warm=False) as client:
        assert client.get("/label-studio/health").json() == {"status": "UP"}
        assert client.post("/label-studio/setup", json={"schema": text}).json() == {"model_version": ""}
        assert client.get("/label-studio/versions").json() == {"versions": []}
        assert client.post("/label-studio/predict", json={}).status_code == 503


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"tasks": []}',
        b'{"tasks": {}, "label_config": "<View/>"}',
        b'{"tasks": [3]}',
        b'{"schema": 3}',
    ],
)
def test_a_body_that_cannot_be_read_is_refused(http: httpx.Client, body: bytes) -> None:
    assert http.post("/label-studio/predict", content=body).status_code in (400, 422)
    assert http.post("/label-studio/setup", content=body).status_code in (400, 422)


def test_very_many_tasks_are_refused() -> None:
    with pytest.raises(InvalidQuery, match="1 to 1000"):
        read_predict(b'{"tasks": [' + b"0," * MAX_TASKS + b"0]}")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("/data/upload/1/a.png", "SOLO_LABEL_STUDIO_URL"),
        ("s3://bucket/a.png", "neither a URL nor a path"),
        ("", "neither a URL nor a path"),
        ("data:image/png,a", "base64"),
        ("data:image/png;base64,?", "base64"),
        (["data:"], "must be a string"),
    ],
)
def test_an_image_that_is_not_to_be_had_is_refused_with_its_place(http: httpx.Client, image: Any, message: str) -> None:
    response = ask(http, image)
    assert response.status_code == 422
    assert response.json()["detail"].startswith("tasks[0].data.photo: ")
    assert message in response.json()["detail"]


@pytest.mark.parametrize(
    "address", ["label-studio:8080", "ftp://a.example", "http://a.example/?x=1", "http://a.example/../"]
)
def test_an_address_of_label_studio_that_is_no_url_stops_the_start(pipeline: Pipeline, address: str) -> None:
    with pytest.raises(SettingsError, match="SOLO_LABEL_STUDIO_URL"):
        create_app(pipeline, Settings(label_studio_url=address))


def test_a_path_is_fetched_below_label_studios_address(pipeline: Pipeline) -> None:
    fetched = []

    class Fetcher(ImageUrls):
        """Notes URLs."""

        async def fetch_image(self, url: str) -> bytes:
            fetched.append(url)
            return b"image"

    async def in_worker(work: Any) -> Any:
        return work()

    for address in ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"):
        settings = Settings(label_studio_url=address)
        images = TaskImages.read(settings, Fetcher(AllowList(()), 1), in_worker)
        assert asyncio.run(images.image_of("/data/upload/1/a.png")) == b"image"
    assert fetched == ["http://127.0.0.1:8080/data/upload/1/a.png"] * 2
