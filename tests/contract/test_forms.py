"""Parameters in queries and forms, files in forms, `Accept` and HEAD, as HTTP clients of all kinds send them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from solo_server.http.api_keys import KeyRing, parse_keys
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.http.forms import MAX_FIELD_BYTES, MAX_FIELDS
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving

PNG = encoded(smooth_image(90, 120))
LARGE = encoded(smooth_image(900, 1200))  # a form this large is parsed in a worker
SETTINGS = Settings(max_files=3)
FILE = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\n'


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def http(pipeline: Pipeline) -> Iterator[httpx.Client]:
    with serving(create_app(pipeline, SETTINGS), **uvicorn_options(SETTINGS)) as client:
        yield client


def _form(*parts: tuple[bytes, bytes]) -> dict[str, Any]:
    """A form of parts with these heads and bodies."""
    content = b"".join(b"--b\r\n" + head + b"\r\n" + body + b"\r\n" for head, body in parts) + b"--b--\r\n"
    return {"content": content, "headers": {"content-type": "multipart/form-data; boundary=b"}}


def _field(name: str, value: str) -> tuple[bytes, bytes]:
    return f'Content-Disposition: form-data; name="{name}"\r\n'.encode(), value.encode()


def _instances(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()["instances"]


def _refused(response: httpx.Response, status: int = 422, code: str = "invalid_query") -> str:
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    return str(problem["detail"])


def test_repeated_classes_are_joined(http: httpx.Client) -> None:
    joined = _instances(http.post("/segment", content=PNG, params={"classes": "0,2"}))
    assert {instance["class_id"] for instance in joined} == {0, 2}
    for path in ("/segment", "/models/tiny-solo/segment"):
        repeated = http.post(f"{path}?classes=0&classes=traffic light", content=PNG)
        assert _instances(repeated) == joined


@pytest.mark.parametrize("name", ["score_threshold", "max_instances", "nms", "format"])
def test_any_other_repeated_parameter_is_refused(http: httpx.Client, name: str) -> None:
    value = {"score_threshold": "0.5", "max_instances": "3", "nms": "mask", "format": "rle"}[name]
    detail = f"{name}: is given 2 times; give it once"
    assert _refused(http.post(f"/segment?{name}={value}&{name}={value}", content=PNG)) == detail
    assert _refused(http.post("/segment", **_form((FILE, PNG), *[_field(name, value)] * 2))) == detail


def test_the_problem_of_a_misspelt_parameter_suggests_the_nearest_name(http: httpx.Client) -> None:
    detail = _refused(http.post("/segment?scorethreshold=0.5", content=PNG))
    assert detail.startswith("unknown parameter 'scorethreshold'; did you mean score_threshold? known are classes,")
    tensor = {"name": "IMAGE", "datatype": "BYTES", "shape": [1], "data": ["eA=="]}
    content = {"parameters": {"score_treshold": 0.5}, "inputs": [{**tensor, "parameters": {"content_type": "base64"}}]}
    error = http.post("/v2/models/tiny-solo/infer", json=content).json()["error"]
    assert error.startswith("parameters: unknown parameter 'score_treshold'; did you mean score_threshold?")


@pytest.mark.parametrize("path", ["/segment", "/models/tiny-solo/segment"])
@pytest.mark.parametrize("body", [PNG, LARGE], ids=["small", "large"])
def test_fields_of_a_form_are_parameters(http: httpx.Client, path: str, body: bytes) -> None:
    query = {"score_threshold": "0.2", "max_instances": "2", "classes": "dog", "nms": "none"}
    expected = _instances(http.post(path, content=body, params=query))
    assert 0 < len(expected) <= 2
    fields = {**query, "classes": ["dog"]}
    assert _instances(http.post(path, files={"file": ("a.png", body)}, data=fields)) == expected
    half = {name: query[name] for name in ("score_threshold", "nms")}
    rest = {name: query[name] for name in ("max_instances", "classes")}
    assert _instances(http.post(path, files={"file": ("a.png", body)}, params=half, data=rest)) == expected


def test_a_form_field_can_request_an_overlay(http: httpx.Client) -> None:
    by_query = http.post("/segment", content=PNG, params={"format": "overlay"})
    by_field = http.post("/segment", files={"file": ("a.png", PNG)}, data={"format": "overlay"})
    assert by_field.headers["content-type"] == "image/png"
    assert by_field.content == by_query.content


def test_form_fields_apply_to_every_file(http: httpx.Client) -> None:
    files = [("file", ("a.png", PNG)), ("file", ("b.png", PNG))]
    results = http.post("/segment", files=files, data={"classes": ["cat", "2"]}).json()["results"]
    expected = _instances(http.post("/segment", content=PNG, params={"classes": "0,2"}))
    assert [result["instances"] for result in results] == [expected, expected]


@pytest.mark.parametrize(
    ("fields", "params", "detail"),
    [
        ({"score_treshold": "0.9"}, {}, "the form field 'score_treshold' is not a parameter; did you mean score_threshold?"),
        ({"image": "x"}, {}, "; a file needs a file name"),
        ({"nms": "mask"}, {"nms": "mask"}, "nms: is in the query and in the form; give it once"),
        ({"classes": "cat"}, {"classes": "dog"}, "classes: is in the query and in the form; give it once"),
        ({"score_threshold": "high"}, {}, "score_threshold: Input should be a valid number"),
        ({"score_threshold": "2"}, {}, "score_threshold: Input should be less than or equal to 1"),
        ({"classes": "unicorn"}, {}, "classes: the model has no class 'unicorn'"),
        ({"classes": "a" * (MAX_FIELD_BYTES + 1)}, {}, "the fields are larger than 16384 bytes at 'classes'"),
        ({"classes": ["a" * (MAX_FIELD_BYTES // 8)] * 9}, {}, "the fields are larger than 16384 bytes at 'classes'"),
        ({"classes": ["cat"] * (MAX_FIELDS + 1)}, {}, "Too many fields"),
    ],
)  # fmt: skip
def test_a_bad_field_is_refused(http: httpx.Client, fields: Any, params: dict[str, str], detail: str) -> None:
    answer = http.post("/segment", files={"file": ("a.png", PNG)}, data=fields, params=params)
    assert detail in _refused(answer)


def test_the_problem_of_an_image_without_a_file_name_says_what_to_do(http: httpx.Client) -> None:
    for body in (PNG, LARGE):  # as `curl -F 'image=<FILE'` sends it
        head = b'Content-Disposition: form-data; name="image"\r\n'
        answer = http.post("/segment", **_form((head, body)))
        if body is PNG:
            assert "curl -F file=@FILE" in _refused(answer, 400, "empty_body")
        else:
            assert "the fields are larger than 16384 bytes at 'image'; a file needs a file name" in _refused(answer)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"Content-Disposition: form-data; name=\"file\"; filename*=UTF-8''na%C3%AFve.png\r\n", "naïve.png"),
        (b"Content-Disposition: form-data; name=file; Filename* = utf-8'en'a%22b.png\r\n", "a_b.png"),
        (b"Content-Disposition: form-data; name=\"file\"; filename*=none''a.png\r\n", "a.png"),
        (b"Content-Disposition: form-data; name=\"file\"; filename=\"plain.png\"; filename*=UTF-8''other.png\r\n", "plain.png"),
        (b"Content-Disposition: form-data; name=\"file\"\r\nContent-Type: image/png\r\n", ""),
        (b"Content-Disposition: form-data; name=\"file\"\r\nContent-Type: Application/Octet-Stream\r\n", ""),
        (b"Content-Disposition: Form-Data; NAME=\"file\"; FILENAME=\"a.png\"\r\n", "a.png"),
    ],
)  # fmt: skip
def test_a_file_is_recognised_by_any_form_of_its_name_or_by_its_type(
    http: httpx.Client, head: bytes, name: str
) -> None:
    expected = _instances(http.post("/segment", content=PNG))
    assert _instances(http.post("/segment", **_form((head, PNG)))) == expected
    results = http.post("/segment", **_form((head, PNG), (FILE, PNG))).json()["results"]
    assert [result["filename"] for result in results] == [name, "a.png"]
    assert [result["instances"] for result in results] == [expected, expected]


def test_a_quoted_text_that_looks_like_a_file_name_is_no_file_name(http: httpx.Client) -> None:
    head = b"Content-Disposition: form-data; name=\"a; filename*=b''c\"\r\n"
    assert "is not a parameter" in _refused(http.post("/segment", **_form((FILE, PNG), (head, b"x"))))


def test_an_empty_file_input_is_ignored(http: httpx.Client) -> None:
    empty = (
        b'Content-Disposition: form-data; name="more"; filename=""\r\nContent-Type: application/octet-stream\r\n',
        b"",
    )
    expected = _instances(http.post("/segment", content=PNG))
    assert _instances(http.post("/segment", **_form((FILE, PNG), empty))) == expected
    assert len(http.post("/segment", **_form(*[(FILE, PNG), empty] * SETTINGS.max_files)).json()["results"]) == 3
    assert "no file in the multipart body" in _refused(http.post("/segment", **_form(empty)), 400, "empty_body")
    for count in (4, 100):
        detail = _refused(http.post("/segment", **_form(*[(FILE, PNG)] * count)))
        assert detail.endswith("too many files in the form; at most 3 are accepted at a time")
    named = http.post("/segment", **_form((FILE, PNG), (FILE, b""))).json()[
        "results"
    ]  # an empty file with a name is not ignored
    assert named[1]["error"]["code"] == "empty_body"


@pytest.mark.parametrize("media_type", ["Multipart/Form-Data; Boundary=b", "MULTIPART/FORM-DATA ;boundary=\"b\""])  # fmt: skip
def test_the_media_type_of_a_form_does_not_depend_on_case(http: httpx.Client, media_type: str) -> None:
    content = _form((FILE, PNG))["content"]
    answer = http.post("/segment", content=content, headers={"content-type": media_type})
    assert _instances(answer) == _instances(http.post("/segment", content=PNG))


def test_the_accept_header_does_not_depend_on_case(http: httpx.Client) -> None:
    drawn = http.post("/segment", content=PNG, headers={"accept": "Image/PNG"})
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
    lines = [("accept", "text/html"), ("Accept", "IMAGE/*;Q=0.9")]
    assert http.post("/segment", content=PNG, headers=lines).content == drawn.content
    metrics = http.get("/metrics", headers={"accept": "Application/OpenMetrics-Text; Version=1.0.0"})
    assert metrics.headers["content-type"].startswith("application/openmetrics-text")


def test_a_request_for_a_jpeg_overlay_is_refused_with_the_accepted_types(http: httpx.Client) -> None:
    for options in ({}, {"params": {"format": "overlay"}}):
        answer = http.post("/segment", content=PNG, headers={"accept": "image/jpeg"}, **options)  # type: ignore[arg-type]
        assert "send `Accept: image/png`" in _refused(answer, 406, "not_acceptable")
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/v2", "/models", "/model", "/metrics", "/docs", "/",
     "/models/tiny-solo", "/models/none", "/v2/models/tiny-solo/ready", "/openapi.json", "/nowhere", "/segment"],
)  # fmt: skip
def test_head_is_answered_as_get_without_the_body(http: httpx.Client, path: str) -> None:
    got, head = http.get(path), http.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    if path != "/metrics":  # its counters change between the requests
        assert head.headers["content-length"] == got.headers["content-length"]


def test_head_is_counted_under_its_route(http: httpx.Client) -> None:
    assert http.head("/models/tiny-solo/versions/none").status_code == 404
    assert 'route="/models/{name}/versions/{version}"' in http.get("/metrics").text


def test_head_has_the_status_of_readiness(pipeline: Pipeline) -> None:
    app = create_app(pipeline, SETTINGS, keys=KeyRing(parse_keys(["alice:" + "k" * 32])))
    with serving(app, **uvicorn_options(SETTINGS)) as client:
        for unready, status in ((False, 200), (True, 503)):
            if unready:
                app.state.service.stop()
            for path in ("/readyz", "/v2/health/ready"):
                assert [client.get(path).status_code, client.head(path).status_code] == [status, status]
            assert [client.head(path).status_code for path in ("/healthz", "/v2/health/live")] == [200, 200]
            assert client.head("/models").status_code == 401
