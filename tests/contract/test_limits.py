"""A server that is full, late, not warm yet or shutting down, as a caller sees it; and callers that disconnect."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import Request, Response
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import ModelSource
from solo_server.service.service import Service
from solo_server.settings import Settings
from support.gated_backend import Gate
from support.images import encoded, smooth_image
from support.serving import serving

PNG = encoded(smooth_image(90, 120))


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture
def gate(pipeline: Pipeline) -> Iterator[Gate]:
    gate = Gate(pipeline)
    yield gate
    gate.open.set()


@contextlib.contextmanager
def _occupied(gate: Gate, settings: Settings) -> Iterator[tuple[httpx.Client, Service, "Future[httpx.Response]"]]:
    """A server whose engine is busy with one image."""
    app = create_app(gate.pipeline, settings)

    @app.post("/drain")
    async def drain(_: Request) -> Response:  # on the event loop, like the signal handler
        app.state.service.drain()
        return Response()

    with serving(app) as client, ThreadPoolExecutor(1) as pool:
        url = client.base_url
        first = pool.submit(lambda: httpx.post(f"{url}/segment", content=PNG, timeout=60))
        assert gate.taken.wait(30)
        try:
            yield client, app.state.service, first
        finally:
            gate.open.set()


def _check_unavailable(response: httpx.Response, code: str, reason: str) -> None:
    problem = response.json()
    assert (response.status_code, problem["code"], problem["reason"]) == (503, code, reason)
    assert int(response.headers["retry-after"]) >= 1


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_full_server_refuses_at_once_and_before_it_has_the_body(gate: Gate) -> None:
    with _occupied(gate, Settings(max_waiting=1)) as (client, _, first):
        _check_unavailable(client.post("/segment", content=PNG), "overloaded", "queue_full")
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=30) as raw:
            raw.sendall(b"POST /segment HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
            assert raw.recv(4096).startswith(b"HTTP/1.1 503")
        gate.open.set()
        assert first.result().status_code == 200
        assert client.post("/segment", content=PNG).status_code == 200


def test_a_refusal_is_logged_by_the_access_line_only(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    with _occupied(gate, Settings(max_waiting=1)) as (client, _, first):
        with caplog.at_level(logging.INFO, "solo_server"):
            refused = client.post("/segment", content=PNG)
            _until(lambda: bool(caplog.records))
        gate.open.set()
        first.result()
    assert [(line.name, line.access.code) for line in caplog.records] == [
        ("solo_server.access", refused.json()["code"])
    ]  # type: ignore[attr-defined]


def test_waiting_pixels_are_limited(gate: Gate) -> None:
    with _occupied(gate, Settings(max_waiting_pixels=20_000)) as (client, _, first):
        _check_unavailable(client.post("/segment", content=PNG), "overloaded", "pixels_full")
        small = ThreadPoolExecutor(1).submit(client.post, "/segment", content=encoded(smooth_image(30, 40)))
        gate.open.set()
        assert [first.result().status_code, small.result().status_code] == [200, 200]


def test_files_of_a_form_that_are_not_admitted_fail_on_their_own(gate: Gate) -> None:
    with _occupied(gate, Settings(max_waiting=3)) as (client, _, first), ThreadPoolExecutor(1) as pool:
        files = [("f", (f"{number}.png", PNG)) for number in range(4)]
        form = pool.submit(lambda: client.post("/segment", files=files))
        assert not form.done()
        gate.open.set()
        results = form.result().json()["results"]
        assert [result.get("error", {}).get("reason") for result in results] == [None, None, "queue_full", "queue_full"]
        assert all(result["instances"] for result in results[:2])
        assert first.result().status_code == 200


def test_a_deadline_is_answered_504_and_costs_no_inference(gate: Gate) -> None:
    with _occupied(gate, Settings()) as (client, service, first):
        response = client.post("/segment", content=PNG, headers={"x-request-timeout-ms": "30"})
        problem = response.json()
        assert (response.status_code, problem["code"]) == (504, "deadline_exceeded")
        assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
        gate.open.set()
        assert first.result().status_code == 200
        assert gate.images == 1
        assert service.admission.images == 0


def test_the_server_has_its_own_deadline(gate: Gate) -> None:
    with _occupied(gate, Settings(request_timeout_ms=200)) as (client, _, first):
        assert client.post("/segment", content=PNG).status_code == 504
        assert first.result().status_code == 504


@pytest.mark.parametrize("value", ["0", "-5", "600001", "soon", "1.5", ""])
def test_an_invalid_deadline_is_refused(gate: Gate, value: str) -> None:
    gate.open.set()
    with serving(create_app(gate.pipeline)) as client:
        response = client.post("/segment", content=PNG, headers={"x-request-timeout-ms": value})
        assert (response.status_code, response.json()["code"]) == (422, "invalid_query")
        assert response.json()["detail"].startswith("X-Request-Timeout-Ms: ")
        assert client.post("/segment", content=PNG, headers={"x-request-timeout-ms": "600000"}).status_code == 200


def test_before_the_model_is_loaded_the_server_answers_that_it_is_warming(pipeline: Pipeline) -> None:
    loaded = threading.Event()

    def opening() -> Pipeline:
        loaded.wait(30)
        return pipeline

    app = create_app(lambda: [ModelSource("tiny", "1", "", opening)])
    with serving(app, warm=False) as client:
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "not ready", "reason": "warming"})
        _check_unavailable(client.post("/segment", content=PNG), "not_ready", "warming")
        _check_unavailable(client.get("/model"), "not_ready", "warming")
        assert client.get("/openapi.json").status_code == 200
        loaded.set()
        _until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/segment", content=PNG).status_code == 200


def test_a_draining_server_is_not_ready_and_answers_accepted_requests(gate: Gate) -> None:
    with _occupied(gate, Settings()) as (client, service, first):
        assert client.post("/drain").status_code == 200
        assert service.unready == "draining"
        assert client.get("/readyz").json() == {"status": "not ready", "reason": "draining"}
        assert client.get("/healthz").status_code == 200
        _check_unavailable(client.post("/segment", content=PNG), "not_ready", "draining")
        gate.open.set()
        assert first.result().status_code == 200


def test_a_hanging_engine_is_reported_and_every_request_is_answered(gate: Gate) -> None:
    reported: list[Exception] = []
    app = create_app(gate.pipeline, Settings(engine_timeout_s=1), reported.append)
    with serving(app) as client:
        _check_unavailable(client.post("/segment", content=PNG), "not_ready", "stalled")
        assert client.get("/readyz").json()["reason"] == "stalled"
        _check_unavailable(client.post("/segment", content=PNG), "not_ready", "stalled")
        assert [type(problem).__name__ for problem in reported] == ["EngineHung"]
        gate.open.set()


def test_a_model_that_cannot_be_loaded_is_reported(pipeline: Pipeline) -> None:
    reported: list[Exception] = []

    def opening() -> Pipeline:
        raise ValueError("no model")

    with serving(
        create_app(lambda: [ModelSource("tiny", "1", "", opening)], on_end=reported.append), warm=False
    ) as client:
        _until(lambda: bool(reported))
        assert client.get("/readyz").status_code == 503
    assert str(reported[0]) == "no model"


def test_a_caller_that_disconnects_costs_no_inference(gate: Gate) -> None:
    with _occupied(gate, Settings()) as (client, service, first):
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as raw:
            head = f"POST /segment HTTP/1.1\r\nhost: x\r\ncontent-length: {len(PNG)}\r\n\r\n"
            raw.sendall(head.encode() + PNG)
            _until(lambda: service.models.find().batcher.waiting == 1)
        _until(lambda: service.admission.images == 1)
        gate.open.set()
        assert first.result().status_code == 200
        assert gate.images == 1


def test_a_caller_that_disconnects_while_sending_leaves_nothing_admitted(gate: Gate) -> None:
    gate.open.set()
    app = create_app(gate.pipeline)
    with serving(app) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as raw:
            raw.sendall(b"POST /segment HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf")
            _until(lambda: app.state.service.admission.images == 1)
        _until(lambda: app.state.service.admission.images == 0)
        assert client.post("/segment", content=PNG).status_code == 200


def test_a_pipelined_request_does_not_look_like_a_disconnect(gate: Gate) -> None:
    with _occupied(gate, Settings()) as (client, service, _):
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=30) as raw:
            head = f"POST /segment HTTP/1.1\r\nhost: x\r\ncontent-length: {len(PNG)}\r\n\r\n"
            raw.sendall(head.encode() + PNG)
            _until(lambda: service.models.find().batcher.waiting == 1)
            raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            gate.open.set()
            received = b""
            while chunk := raw.recv(65536):
                received += chunk
        assert received.count(b"HTTP/1.1 200") == 2


def test_large_forms_are_parsed_in_a_worker(gate: Gate) -> None:
    gate.open.set()
    with serving(create_app(gate.pipeline)) as client:
        noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
        body = encoded(noise)
        assert len(body) > 400_000
        raw = client.post("/segment", content=body).json()
        files = [("f", ("a.png", body)), ("f", ("b.png", body)), ("f", ("c.png", b"no image"))]
        several = client.post("/segment", files=files).json()["results"]
        assert [result["filename"] for result in several] == ["a.png", "b.png", "c.png"]
        assert several[0]["instances"] == several[1]["instances"] == raw["instances"]
        assert several[2]["error"]["code"] == "unsupported_media_type"
        broken = client.post("/segment", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
        assert (broken.status_code, broken.json()["code"]) == (422, "invalid_query")
