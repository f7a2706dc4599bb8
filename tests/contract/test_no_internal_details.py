"""No refusal reveals paths, libraries or internals of the server: every error path is tested, and every answer searched."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from solo_server.commands.open_pipeline import image_limits
from solo_server.errors import EngineFailure, RequestError, ServerError
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving
from support.streams import HANDSHAKE

JPEG = encoded(smooth_image(90, 120), "JPEG")
PNG = encoded(smooth_image(90, 120))
WEBP = encoded(smooth_image(90, 120), "WEBP")
KEY = "0123456789abcdef"
SETTINGS = Settings(
    max_body_bytes=300_000,
    max_pixels=1_000_000,
    max_files=4,
    max_header_bytes=8192,
    api_keys=KEY,
    body_timeout_s=1,
    max_mask_bytes=10_000,
    image_urls=("http://127.0.0.1:1/in/",),  # where nobody listens
)
INTERNALS = re.compile(
    r"Traceback|File \\?\"|\.py\b|line \d+, in|0x[0-9a-f]{6,}|<[\w.]+ object|site-packages"  # traces and objects
    r"|/(usr|opt|home|root|tmp|var|etc|work|src|proc)/"  # paths
    r"|(python|uvicorn|starlette|fastapi|pydantic|pillow|PIL|httptools|numpy|numba|onnxruntime|openvino)",  # libraries
    re.IGNORECASE,
)
MULTIPART = "multipart/form-data; boundary=b"
V2_INFER = "/v2/models/tiny-solo/infer"
V2_MASKS = {
    "inputs": [
        {"name": "PIXELS", "datatype": "UINT8", "shape": [60, 80, 3], "data": smooth_image(60, 80).ravel().tolist()}
    ],
    "outputs": [{"name": "MASKS"}],
}


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1, limits=image_limits(SETTINGS))


@pytest.fixture(scope="module")
def http(pipeline: Pipeline) -> Iterator[httpx.Client]:
    with serving(create_app(pipeline, SETTINGS), **uvicorn_options(SETTINGS)) as client:
        client.headers["x-api-key"] = KEY
        yield client


def _slow_body() -> Iterator[bytes]:
    yield PNG[:100]
    time.sleep(1.5)
    yield PNG[100:]


PATHS: list[tuple[str, str, dict[str, Any]]] = [
    ("empty_body", "/segment", {"content": b""}),
    ("empty_body", "/segment", {"files": [("f", ("", b""))], "data": {"a": "b"}}),
    ("unsupported_media_type", "/segment", {"content": b"<svg/>"}),
    ("invalid_query", "/segment", {"json": {"image": "/etc/passwd"}}),
    ("url_not_allowed", "/segment", {"json": {"url": "file:///etc/passwd"}}),
    ("url_not_allowed", "/segment", {"json": {"url": "http://169.254.169.254/in/../etc/passwd"}}),
    ("url_unreachable", "/segment", {"json": {"url": "http://127.0.0.1:1/in/etc/passwd"}}),
    *(("image_damaged", "/segment", {"content": whole[:share]}) for whole in (JPEG, PNG, WEBP) for share in (300, -30)),
    ("image_damaged", "/segment", {"content": PNG[:60] + bytes(40) + PNG[100:]}),
    ("image_too_large", "/segment", {"content": encoded(np.zeros((1024, 1024, 3), np.uint8))}),
    ("body_too_large", "/segment", {"content": bytes(300_001)}),
    ("request_timeout", "/segment", {"content": _slow_body}),
    ("headers_too_large", "/segment", {"content": PNG, "headers": {"x": "a" * 9000}}),
    ("unauthorized", "/segment", {"content": PNG, "headers": {"x-api-key": "another-one-0123456789"}}),
    ("invalid_query", "/segment", {"content": PNG, "params": {"nms": "soft"}}),
    ("invalid_query", "/segment", {"content": PNG, "params": {"score_threshold": "high"}}),
    ("invalid_query", "/segment", {"content": PNG, "params": {"max_instances": "9" * 5000}}),
    ("invalid_query", "/segment", {"content": PNG, "params": {"classes": "unicorn"}}),
    ("invalid_query", "/segment", {"content": PNG, "params": {"classes": "²"}}),
    ("invalid_query", "/segment", {"content": PNG, "params": {"classes": "9" * 5000}}),
    ("invalid_query", "/segment", {"content": PNG, "params": {"colour": "red"}}),
    ("invalid_query", "/segment", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
    ("invalid_query", "/segment", {"content": b"x", "headers": {"content-type": MULTIPART}}),
    ("invalid_query", "/segment", {"content": b"--b\r\nx\r\n\r\n--b--", "headers": {"content-type": MULTIPART}}),
    ("invalid_query", "/segment", {"files": {"f": ("a.png", PNG)}, "data": {"colour": "/etc/passwd"}}),
    ("invalid_query", "/segment", {"files": {"f": ("a.png", PNG)}, "data": {"nms": "/etc/passwd"}}),
    ("invalid_query", "/segment", {"files": {"f": ("a.png", PNG)}, "data": {"classes": "a" * 20_000}}),
    ("not_acceptable", "/segment", {"content": PNG, "headers": {"accept": "image/jpeg"}}),
    ("model_not_found", "/models/other/segment", {"content": PNG}),
    ("not_found", "/models/..%2f..%2fetc/segment", {"content": PNG}),
    ("model_not_found", "/models/tiny-solo/versions/9/segment", {"content": PNG}),
    ("control_off", "/models/tiny-solo/unload", {}),
    ("not_found", "/nowhere", {"content": b""}),
    ("not_found", "/segment/../../etc", {"content": b""}),
    ("method_not_allowed", "/healthz", {"content": b""}),
    ("invalid_tensor", V2_INFER, {"content": b"{"}),
    (
        "invalid_tensor",
        V2_INFER,
        {"json": {"inputs": [{"name": "/etc/passwd", "datatype": "UINT8", "shape": [2**63]}]}},
    ),
    ("answer_too_large", V2_INFER, {"json": V2_MASKS}),
    ("unauthorized", V2_INFER, {"content": PNG, "headers": {"x-api-key": "another-one-0123456789"}}),
    ("not_found", "/v2/nowhere", {"content": b""}),
]


@pytest.mark.parametrize(("code", "path", "request_"), PATHS)
def test_a_refusal_tells_nothing_of_the_inside(
    http: httpx.Client, code: str, path: str, request_: dict[str, Any]
) -> None:
    if callable(request_.get("content")):
        request_ = {"content": request_["content"]()}
    response = http.post(path, **request_)
    assert response.json()["code"] == code
    _check_reveals_nothing(response)


STREAMS: list[tuple[str, dict[str, str]]] = [
    ("upgrade_required", {"upgrade": "h2c"}),
    ("origin_refused", {"origin": "https://evil.example"}),
    ("unauthorized", {"x-api-key": "another-one-0123456789"}),
]


@pytest.mark.parametrize(("code", "headers"), STREAMS)
def test_a_refused_stream_tells_nothing_of_the_inside(http: httpx.Client, code: str, headers: dict[str, str]) -> None:
    handshake = dict(line.split(": ", 1) for line in HANDSHAKE.decode().lower().split("\r\n")[1:] if line)
    response = http.get("/stream", headers={**handshake, "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", **headers})
    assert response.json()["code"] == code
    _check_reveals_nothing(response)


@pytest.mark.parametrize("failure", [EngineFailure("/opt/x.py"), RuntimeError("/opt/x.py"), KeyError("/opt/x.py")])
@pytest.mark.parametrize("stage", ["decode", "infer", "finish", "backend"])
def test_our_own_failures_tell_nothing_wherever_they_happen(
    http: httpx.Client, pipeline: Pipeline, failure: Exception, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    if stage == "backend":
        monkeypatch.setattr("solo_server.http.routes.result_json", fail)  # outside of all stages
    else:
        monkeypatch.setattr(pipeline, stage, fail)
    response = http.post("/segment", content=PNG)
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    _check_reveals_nothing(response)


def test_before_the_model_is_warm_nothing_is_revealed(pipeline: Pipeline) -> None:
    with serving(create_app(pipeline), lifespan="off", **uvicorn_options(Settings())) as client:
        response = client.post("/segment", content=PNG)
        assert response.json()["code"] == "not_ready"
        _check_reveals_nothing(response)


def test_every_problem_code_is_covered() -> None:
    elsewhere = {
        "internal",  # above
        "not_ready",  # above
        "overloaded",  # test_limits.py, test_connections.py
        "deadline_exceeded",  # test_limits.py
        "malformed_request",  # test_connections.py, which checks the whole answer
        "model_not_loadable",  # test_models.py checks for the path
    }
    covered = {code for code, _, _ in PATHS} | {code for code, _ in STREAMS}
    assert {kind.code for kind in _kinds(ServerError)} <= covered | elsewhere


def _kinds(root: type[ServerError]) -> Iterator[type[ServerError]]:
    for kind in root.__subclasses__():
        if kind is not RequestError:
            yield kind
        yield from _kinds(kind)


def _check_reveals_nothing(response: httpx.Response) -> None:
    is_v2 = response.request.url.path.startswith("/v2")
    assert response.headers["content-type"] == ("application/json" if is_v2 else "application/problem+json")
    answer = response.text + "\n" + "\n".join(f"{name}: {value}" for name, value in response.headers.items())
    assert not INTERNALS.search(answer), answer
    assert "server" not in response.headers
    assert response.headers["x-content-type-options"] == "nosniff"
