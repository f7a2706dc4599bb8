"""The HTTP interface as a caller sees it: answers, formats, and every refusal with its status and code."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from solo_server.commands.open_pipeline import image_limits
from solo_server.errors import EngineFailure
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving

JPEG = encoded(smooth_image(90, 120), "JPEG")
PNG = encoded(smooth_image(90, 120))
LIMIT = 300_000
SETTINGS = Settings(max_body_bytes=LIMIT, max_pixels=1_000_000, max_files=4)


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1, limits=image_limits(SETTINGS))


@pytest.fixture(scope="module")
def http(pipeline: Pipeline) -> Iterator[httpx.Client]:
    with serving(create_app(pipeline, SETTINGS)) as client:
        yield client


def _check_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text[:300]
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    reason = {"reason"} if status == 503 else set()
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"} | reason
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == response.headers["x-request-id"]
    return dict(problem)


def test_a_raw_body_is_answered_with_instances_that_pycocotools_decodes(http: httpx.Client) -> None:
    response = http.post("/segment", content=JPEG, headers={"content-type": "image/jpeg"})
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"image", "model", "timings_ms", "instances"}
    assert answer["image"] == {"width": 120, "height": 90}
    assert 0 < len(answer["instances"]) <= 100
    for instance in answer["instances"]:
        mask = coco_mask.decode(instance["mask"])
        assert mask.shape == (90, 120)
        assert mask.sum() == instance["area"]
        assert coco_mask.toBbox(instance["mask"]).tolist() == instance["box_xywh"]
        assert instance["label"] == ["cat", "dog", "traffic light"][instance["class_id"]]
    scores = [i["score"] for i in answer["instances"]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= 0.05


def test_timings_add_up(http: httpx.Client) -> None:
    timings = http.post("/segment", content=PNG).json()["timings_ms"]
    stages = ("decode", "preprocess", "categories", "towers", "masks", "nms", "encode")
    assert tuple(timings) == ("queue", *stages, "total")
    assert timings["total"] == pytest.approx(sum(v for k, v in timings.items() if k != "total"), abs=0.01)


def test_one_file_of_a_form_is_answered_like_a_raw_body(http: httpx.Client) -> None:
    raw = http.post("/segment", content=PNG).json()
    form = http.post("/segment", files={"file": ("a.png", PNG, "image/png")}).json()
    assert form["instances"] == raw["instances"]


def test_each_file_of_a_form_has_its_own_result_or_error(http: httpx.Client) -> None:
    files = [("file", ("a.png", PNG)), ("file", ("b.jpg", b"no image")), ("other", ("c.jpg", JPEG))]
    response = http.post("/segment", files=files)
    assert response.status_code == 200
    first, second, third = response.json()["results"]
    assert [first["filename"], second["filename"], third["filename"]] == ["a.png", "b.jpg", "c.jpg"]
    assert first["instances"] == http.post("/segment", content=PNG).json()["instances"]
    assert second["error"]["code"] == "unsupported_media_type"
    assert third["instances"]


def test_query_parameters_are_applied(http: httpx.Client) -> None:
    query = {"score_threshold": 0.2, "max_instances": 2, "classes": "dog, 2", "nms": "mask"}
    instances = http.post("/segment", content=PNG, params=query).json()["instances"]
    assert 0 < len(instances) <= 2
    assert all(i["class_id"] in (1, 2) and i["score"] >= 0.2 for i in instances)


def test_no_instances_is_an_empty_list(http: httpx.Client) -> None:
    response = http.post("/segment", content=PNG, params={"score_threshold": 1})
    assert response.status_code == 200
    assert response.json()["instances"] == []


@pytest.mark.parametrize("how", [{"params": {"format": "overlay"}}, {"headers": {"accept": "image/png"}}])
def test_an_overlay_is_a_png_of_the_images_size(http: httpx.Client, how: dict[str, Any]) -> None:
    response = http.post("/segment", content=PNG, **how)
    assert response.headers["content-type"] == "image/png"
    drawn = np.asarray(Image.open(BytesIO(response.content)))
    assert drawn.shape == (90, 120, 3)
    assert (drawn != smooth_image(90, 120)).any()


def _scores(http: httpx.Client) -> list[float]:
    return [instance["score"] for instance in http.post("/segment", content=PNG).json()["instances"]]


@pytest.mark.parametrize("threshold", [None, 0.2, 0.5])
def test_an_overlay_counts_the_instances_that_it_does_not_draw(http: httpx.Client, threshold: float | None) -> None:
    scores, params = _scores(http), {} if threshold is None else {"score_threshold": threshold}
    overlay = http.post("/segment", content=PNG, params={"format": "overlay", **params})
    assert int(overlay.headers["x-instances-not-drawn"]) == sum(score < (threshold or 0.3) for score in scores) > 0


def test_an_overlay_without_instances_says_so_in_its_footer(http: httpx.Client) -> None:
    overlay = http.post("/segment", content=PNG, params={"format": "overlay", "score_threshold": 1})
    assert int(overlay.headers["x-instances-not-drawn"]) == len(_scores(http))
    changed = (np.asarray(Image.open(BytesIO(overlay.content))) != smooth_image(90, 120)).any(2)
    assert changed[-14:].any()
    assert not changed[:-20].any()


def test_an_overlay_draws_instances_at_the_threshold_and_above(http: httpx.Client) -> None:
    best = max(_scores(http))
    params = {"format": "overlay", "score_threshold": best - 1e-6}
    overlay = http.post("/segment", content=PNG, params=params)
    one = http.post("/segment", content=PNG, params={**params, "max_instances": 1})
    assert overlay.content == one.content
    assert int(one.headers["x-instances-not-drawn"]) == 0


@pytest.mark.parametrize(("kind", "named"), [("TIFF", "TIFF"), ("GIF", "GIF"), ("ICO", "ICO"), ("PDF", "PDF")])
def test_a_format_that_is_not_accepted_is_named(http: httpx.Client, kind: str, named: str) -> None:
    problem = _check_problem(
        http.post("/segment", content=encoded(smooth_image(90, 120), kind)), 415, "unsupported_media_type"
    )
    assert problem["detail"] == f"{named} is not accepted; send JPEG, PNG, WebP, AVIF or BMP"


def test_a_jpeg_without_its_end_marker_is_accepted_and_a_truncated_one_is_damaged(http: httpx.Client) -> None:
    complete, unended = (http.post("/segment", content=body).json() for body in (JPEG, JPEG[:-2]))
    assert unended["instances"] == complete["instances"]
    _check_problem(http.post("/segment", content=JPEG[:-3]), 422, "image_damaged")


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b""}, 400, "empty_body"),
        ({"content": b"text named .jpg", "headers": {"content-type": "image/jpeg"}}, 415, "unsupported_media_type"),
        ({"json": {"image": "x"}}, 415, "unsupported_media_type"),
        ({"content": JPEG[:600]}, 422, "image_damaged"),
        ({"content": encoded(np.zeros((1024, 1024, 3), np.uint8))}, 413, "image_too_large"),
        ({"content": bytes(LIMIT + 1)}, 413, "body_too_large"),
        ({"content": PNG, "params": {"nms": "soft"}}, 422, "invalid_query"),
        ({"content": PNG, "params": {"score_threshold": "high"}}, 422, "invalid_query"),
        ({"content": PNG, "params": {"score_threshold": 1.5}}, 422, "invalid_query"),
        ({"content": PNG, "params": {"score_threshold": "nan"}}, 422, "invalid_query"),
        ({"content": PNG, "params": {"max_instances": 0}}, 422, "invalid_query"),
        ({"content": PNG, "params": {"classes": "unicorn"}}, 422, "invalid_query"),
        ({"content": PNG, "params": {"colour": "red"}}, 422, "invalid_query"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 422, "invalid_query"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 422, "invalid_query"),
        ({"files": [("f", (f"{i}.png", PNG)) for i in range(5)]}, 422, "invalid_query"),
        ({"files": [("f", ("", b""))], "data": {"a": "b"}}, 400, "empty_body"),
    ],
)
def test_refusals_have_a_status_and_a_code(
    http: httpx.Client, request_: dict[str, Any], status: int, code: str
) -> None:
    _check_problem(http.post("/segment", **request_), status, code)
    assert http.get("/readyz").status_code == 200


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(http: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(10):
            yield bytes(LIMIT // 5)

    _check_problem(http.post("/segment", content=chunks()), 413, "body_too_large")


def test_unknown_paths_and_methods_are_problems_too(http: httpx.Client) -> None:
    _check_problem(http.get("/nowhere"), 404, "not_found")
    _check_problem(http.get("/segment"), 405, "method_not_allowed")


def test_a_request_id_is_kept_or_made(http: httpx.Client) -> None:
    assert http.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert len(http.get("/healthz", headers={"x-request-id": "a b\t<c>"}).headers["x-request-id"]) == 32


def test_health_readiness_and_model(http: httpx.Client, pipeline: Pipeline) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}
    model = http.get("/model").json()
    assert model["classes"] == ["cat", "dog", "traffic light"]
    assert model["version"] == pipeline.bundle.version
    assert model["engine"].startswith("onnxruntime")
    assert model["engine_reason"] == "auto: fp32 runs on onnxruntime"


def test_openapi_names_the_formats_and_parameters(http: httpx.Client) -> None:
    segment = http.get("/openapi.json").json()["paths"]["/segment"]["post"]
    assert {"image/jpeg", "multipart/form-data"} <= set(segment["requestBody"]["content"])
    names = {p["name"] for p in segment["parameters"]}
    query = {"score_threshold", "max_instances", "classes", "nms", "format", "tolerance", "overlay", "colour_by"}
    assert names == query | {"X-Request-Timeout-Ms"}
    assert "503" in segment["responses"]


@pytest.mark.parametrize("failure", [EngineFailure("secret: /etc/passwd"), RuntimeError("secret: /etc/passwd")])
def test_internal_failures_reveal_nothing(
    pipeline: Pipeline, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(create_app(pipeline)) as client:

        def fail(*_: object) -> None:
            raise failure

        monkeypatch.setattr(pipeline, "infer", fail)
        problem = _check_problem(client.post("/segment", content=PNG), 500, "internal")
        assert "secret" not in json.dumps(problem)
        several = client.post("/segment", files=[("f", ("a.png", PNG)), ("f", ("b.png", PNG))])
        assert [r["error"]["code"] for r in several.json()["results"]] == ["internal", "internal"]
        assert "secret" not in several.text
        monkeypatch.undo()
        assert client.post("/segment", content=PNG).status_code == 200
