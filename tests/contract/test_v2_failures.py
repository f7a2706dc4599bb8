"""Refusals below `/v2`: the form of the protocol, the server's status and code, and nothing left admitted."""

import contextlib
import gzip
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from solo_server.commands.open_pipeline import image_limits
from solo_server.errors import AnswerTooLarge, EngineFailure, Overloaded
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.http.v2.mask_budget import MaskBudget
from solo_server.observability.observer import Unobserved
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.gated_backend import Gate
from support.images import encoded, smooth_image
from support.serving import serving
from support.small_app import samples, value

PNG, OTHER = encoded(smooth_image(90, 121)), encoded(smooth_image(40, 30))
INFER = "/v2/models/tiny-solo/infer"
ROUTE = "/v2/models/{name}/infer"
KEY = "0123456789abcdef"
SETTINGS = Settings(max_body_bytes=300_000, max_pixels=1_000_000, max_files=4, max_mask_bytes=200_000, body_timeout_s=1)


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1, limits=image_limits(SETTINGS))


@pytest.fixture(scope="module")
def http(pipeline: Pipeline) -> Iterator[httpx.Client]:
    with serving(create_app(pipeline, SETTINGS), **uvicorn_options(SETTINGS)) as client:
        yield client


@pytest.fixture
def gate(pipeline: Pipeline) -> Iterator[Gate]:
    gate = Gate(pipeline)
    yield gate
    gate.open.set()


def infer_options(*images: bytes, **more: Any) -> dict[str, Any]:
    """Options of httpx for a request with these images."""
    raw = b"".join(struct.pack("<I", len(body)) + body for body in images)
    tensor = {
        "name": "IMAGE",
        "datatype": "BYTES",
        "shape": [len(images)],
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return {"content": head + raw, "headers": {"inference-header-content-length": str(len(head))}}


def masks(name: str, *, binary: bool = True) -> dict[str, Any]:
    return {"outputs": [{"name": name, "parameters": {"binary_data": binary}}]}


def check_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text[:300]
    assert response.headers["content-type"] == "application/json"
    problem = dict(response.json())
    assert set(problem) == {"error", "code", "request_id"} | ({"reason"} if status == 503 else set())
    assert isinstance(problem["error"], str)
    assert problem["code"] == code
    assert problem["request_id"] == response.headers["x-request-id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    return problem


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _slow_body() -> Iterator[bytes]:
    yield b"{"
    time.sleep(1.5)
    yield b"}"


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b""}, 400, "empty_body"),
        ({"content": b"{"}, 400, "invalid_tensor"),
        ({"content": PNG}, 400, "invalid_tensor"),
        ({"json": {"inputs": []}}, 400, "invalid_tensor"),
        ({"content": b"{}", "headers": {"inference-header-content-length": "3"}}, 400, "invalid_tensor"),
        (infer_options(), 400, "invalid_tensor"),
        (infer_options(*[OTHER] * 5), 400, "invalid_tensor"),
        (infer_options(OTHER, outputs=[{"name": "DEPTH"}]), 400, "invalid_tensor"),
        (infer_options(b""), 400, "empty_body"),
        (infer_options(b"text"), 415, "unsupported_media_type"),
        (infer_options(PNG[:200]), 422, "image_damaged"),
        (infer_options(encoded(np.zeros((1024, 1024, 3), np.uint8))), 413, "image_too_large"),
        (infer_options(bytes(300_000)), 413, "body_too_large"),
        ({"content": gzip.compress(bytes(1 << 20)), "headers": {"content-encoding": "gzip"}}, 413, "body_too_large"),
        ({"content": b"x", "headers": {"content-encoding": "br"}}, 415, "unsupported_media_type"),
        (infer_options(OTHER, parameters={"classes": "unicorn"}), 422, "invalid_query"),
        (infer_options(OTHER, parameters={"timeout": "soon"}), 422, "invalid_query"),
        ({"content": b"{}", "headers": {"x-request-timeout-ms": "0"}}, 422, "invalid_query"),
        (infer_options(PNG, OTHER, **masks("MASKS")), 422, "invalid_query"),
        (infer_options(PNG, **masks("MASKS")), 422, "answer_too_large"),
        ({"content": b"{}", "headers": {"x": "a" * 20_000}}, 431, "headers_too_large"),
        ({"content": _slow_body}, 408, "request_timeout"),
    ],
)  # fmt: skip
def test_a_refusal_has_the_protocols_form_and_our_code(
    http: httpx.Client, request_: dict[str, Any], status: int, code: str
) -> None:
    if callable(request_.get("content")):
        request_ = {"content": request_["content"]()}
    response = http.post(INFER, **request_)
    if status == 431:  # refused by the connection, which does not know the path
        assert (response.status_code, response.json()["code"]) == (status, code)
        return
    check_error(response, status, code)
    assert http.get("/v2/health/ready").status_code == 200


def test_unknown_paths_models_and_methods_are_errors_too(http: httpx.Client) -> None:
    check_error(http.get("/v2/nowhere"), 404, "not_found")
    check_error(http.get(INFER), 405, "method_not_allowed")
    check_error(http.post("/v2/models/unicorn/infer", **infer_options(PNG)), 404, "model_not_found")
    check_error(http.post("/v2/models/tiny-solo/versions/7/infer", **infer_options(PNG)), 404, "model_not_found")
    check_error(http.get("/v2/models/unicorn"), 404, "model_not_found")
    check_error(http.post("/v2/repository/models/tiny-solo/unload"), 403, "control_off")
    check_error(http.post("/v2/repository/models/tiny-solo/load"), 403, "control_off")
    check_error(http.post("/v2/repository/index", content=b"["), 400, "invalid_tensor")
    check_error(http.post("/v2/repository/index", json={"ready": 1}), 400, "invalid_tensor")
    check_error(http.post("/v2/repository/index", content=bytes(70_000)), 413, "body_too_large")
    assert http.get("/v2elsewhere").headers["content-type"] == "application/problem+json"


def test_without_a_key_there_is_nothing_but_the_probes(pipeline: Pipeline) -> None:
    with serving(create_app(pipeline, Settings(api_keys=KEY))) as client:
        assert client.get("/v2/health/live").status_code == client.get("/v2/health/ready").status_code == 200
        for path in ("/v2", "/v2/models/tiny-solo", "/v2/models/tiny-solo/ready", "/v2/health"):
            response = client.get(path)
            check_error(response, 401, "unauthorized")
            assert response.headers["www-authenticate"].startswith("Bearer")
        check_error(client.post(INFER, **infer_options(PNG)), 401, "unauthorized")
        assert client.get("/v2/models/tiny-solo/ready", headers={"x-api-key": KEY}).status_code == 200


def test_before_the_model_is_warm_nothing_is_ready(pipeline: Pipeline) -> None:
    with serving(create_app(pipeline), lifespan="off") as client:
        assert client.get("/v2/health/live").status_code == 200
        for response in (
            client.get("/v2/health/ready"),
            client.get("/v2/models/tiny-solo/ready"),
            client.get("/v2/models/tiny-solo"),
            client.post(INFER, **infer_options(PNG)),
        ):
            assert check_error(response, 503, "not_ready")["reason"] == "warming"
            assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("failure", [EngineFailure("secret: /etc/passwd"), RuntimeError("secret: /etc/passwd")])
def test_internal_failures_reveal_nothing(
    pipeline: Pipeline, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    with serving(create_app(pipeline)) as client:
        for target in (
            "solo_server.http.v2.infer.write",
            "solo_server.http.v2.infer.inflate",
            "solo_server.http.v2.infer.mask_bytes",
        ):
            with monkeypatch.context() as broken:
                broken.setattr(target, fail)
                response = httpx.post(f"{client.base_url}{INFER}", **infer_options(PNG))
                assert "secret" not in response.text
                assert (response.status_code, response.json()["code"]) == (500, "internal")
                assert set(response.json()) == {"error", "code", "request_id"}
        monkeypatch.setattr(pipeline, "infer", fail)
        assert "secret" not in json.dumps(check_error(client.post(INFER, **infer_options(PNG, OTHER)), 500, "internal"))
        monkeypatch.undo()
        assert client.post(INFER, **infer_options(PNG)).status_code == 200


def test_failures_are_counted_by_their_code(pipeline: Pipeline) -> None:
    with serving(create_app(pipeline, Settings(max_files=4))) as client:
        client.post(INFER, **infer_options(PNG, OTHER))
        client.post(INFER, content=b"{")
        client.post(INFER, **infer_options(PNG, b"no image"))
        client.get("/v2/nowhere")
        found = samples(client.get("/metrics").text)
    for outcome, code, count in (
        ("ok", "ok", 1),
        ("client_error", "invalid_tensor", 1),
        ("client_error", "unsupported_media_type", 1),
    ):
        counted = {k: v for k, v in found.items() if k[0] == "solo_requests_total" and ("code", code) in k[1]}
        assert value(counted, "solo_requests_total", route=ROUTE, outcome=outcome, code=code) == count, counted


@contextlib.contextmanager
def occupied(gate: Gate, settings: Settings) -> Iterator[tuple[httpx.Client, Any]]:
    """A server whose engine is busy with one image."""
    app = create_app(gate.pipeline, settings)
    with serving(app) as client, ThreadPoolExecutor(1) as pool:
        url = client.base_url
        first = pool.submit(lambda: httpx.post(f"{url}/segment", content=PNG, timeout=60))
        assert gate.taken.wait(30)
        try:
            yield client, app.state.service
        finally:
            gate.open.set()
            assert first.result().status_code == 200


def test_a_full_server_says_when_to_retry(gate: Gate) -> None:
    with occupied(gate, Settings(max_waiting=1)) as (client, _):
        response = client.post(INFER, **infer_options(PNG))
        assert check_error(response, 503, "overloaded")["reason"] == "queue_full"
        assert int(response.headers["retry-after"]) >= 1


def test_images_that_are_not_admitted_fail_the_request_and_free_the_others(gate: Gate) -> None:
    with occupied(gate, Settings(max_waiting=3)) as (client, service):
        assert check_error(client.post(INFER, **infer_options(*[PNG] * 3)), 503, "overloaded")["reason"] == "queue_full"
        until(lambda: bool(service.admission.images == 1))
        assert service.models.find().batcher.waiting == 0


def test_after_a_bad_image_the_others_are_not_inferred(gate: Gate) -> None:
    with occupied(gate, Settings()) as (client, service):
        error = check_error(client.post(INFER, **infer_options(PNG, b"no image", OTHER)), 415, "unsupported_media_type")
        assert error["error"].startswith("IMAGE[1]: ")
        until(lambda: bool(service.admission.images == 1))
    assert gate.images == 1


@pytest.mark.parametrize("how", ["timeout", "header"])
def test_a_deadline_is_answered_504_and_costs_no_inference(gate: Gate, how: str) -> None:
    with occupied(gate, Settings()) as (client, service):
        request = infer_options(PNG, OTHER, **({"parameters": {"timeout": 30_000}} if how == "timeout" else {}))
        if how == "header":
            request["headers"]["x-request-timeout-ms"] = "30"
        check_error(client.post(INFER, **request), 504, "deadline_exceeded")
        until(lambda: bool(service.admission.images == 1))
    assert gate.images == 1


def test_a_timeout_never_extends_the_deadline(gate: Gate) -> None:
    with occupied(gate, Settings()) as (client, _):
        request = infer_options(PNG, parameters={"timeout": 600_000_000})
        request["headers"]["x-request-timeout-ms"] = "30"
        check_error(client.post(INFER, **request), 504, "deadline_exceeded")


def test_a_caller_that_disconnects_costs_no_inference(gate: Gate) -> None:
    with occupied(gate, Settings()) as (client, service):
        request = infer_options(PNG, OTHER)
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as raw:
            lines = {**request["headers"], "host": "x", "content-length": str(len(request["content"]))}
            head = "".join(f"{name}: {text}\r\n" for name, text in lines.items())
            raw.sendall(f"POST {INFER} HTTP/1.1\r\n{head}\r\n".encode() + request["content"])
            until(lambda: bool(service.models.find().batcher.waiting == 2))
        until(lambda: bool(service.admission.images == 1))
    assert gate.images == 1


def test_masks_as_arrays_are_bounded_and_rle_is_not(http: httpx.Client) -> None:
    few = {"parameters": {"max_instances": 5}}
    assert http.post(INFER, **infer_options(PNG, **few, **masks("MASKS"))).status_code == 200
    error = check_error(
        http.post(INFER, **infer_options(PNG, **few, **masks("MASKS", binary=False))), 422, "answer_too_large"
    )
    assert f"the masks take {5 * 90 * 121 * 4} bytes; the limit is 200000" in error["error"]
    assert http.post(INFER, **infer_options(PNG, **masks("PACKED_MASKS"))).status_code == 200
    assert http.post(INFER, **infer_options(PNG, PNG, PNG)).status_code == 200
    for _ in range(5):  # the memory of sent masks is released
        assert http.post(INFER, **infer_options(PNG, **masks("PACKED_MASKS"))).status_code == 200


def test_masks_that_are_not_sent_yet_use_up_the_budget() -> None:
    refusals: list[tuple[str, str]] = []

    class RefusalRecorder(Unobserved):
        def refused(self, code: str, reason: str) -> None:
            refusals.append((code, reason))

    budget = MaskBudget(100, RefusalRecorder())
    budget.reserve(60)
    with pytest.raises(Overloaded) as full:
        budget.reserve(41)
    assert (full.value.reason, refusals) == ("masks_full", [("overloaded", "masks_full")])
    with pytest.raises(AnswerTooLarge):
        budget.reserve(101)
    budget.reserve(40)
    budget.release(60)
    budget.reserve(60)
    assert budget.size_bytes == 100


def test_masks_leave_their_room_where_nobody_reads_them(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[MaskBudget] = []
    monkeypatch.setattr(
        "solo_server.http.v2.routes.MaskBudget",
        lambda *arguments: budgets.append(MaskBudget(*arguments)) or budgets[0],
    )
    large = infer_options(encoded(np.kron(smooth_image(90, 121), np.ones((9, 9, 1), np.uint8))), **masks("MASKS"))
    with serving(create_app(pipeline, Settings())) as client:
        [budget] = budgets
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as raw:
            lines = {**large["headers"], "host": "x", "content-length": str(len(large["content"]))}
            head = "".join(f"{name}: {text}\r\n" for name, text in lines.items())
            raw.sendall(f"POST {INFER} HTTP/1.1\r\n{head}\r\n".encode() + large["content"])
            raw.recv(1)
            until(lambda: budget.size_bytes > 30_000_000)  # more than the buffers of the sockets hold
        until(lambda: budget.size_bytes == 0)
