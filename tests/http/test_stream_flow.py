"""Which frames of a stream are computed: the newest, few at a time, beside other callers; and what ends a stream.

The engine waits behind a gate, so that each test decides what is computed when.
"""

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.observability.logs import Access
from solo_server.observability.traces import Traces
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import model_repository
from solo_server.settings import Settings
from support.bundles import tiny_bundle
from support.gated_backend import Gate
from support.images import encoded, smooth_image
from support.serving import serving
from support.small_app import samples, value
from support.streams import problem_of, streaming

PNG = encoded(smooth_image(60, 80))


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@contextmanager
def _gated(pipeline: Pipeline, **settings: Any) -> Iterator[tuple[Gate, httpx.Client, Any]]:
    """A closed gate, a client of the server behind it, and its service."""
    gate, chosen = Gate(pipeline), Settings(**settings)
    app = create_app(gate.pipeline, chosen)
    with serving(app, **uvicorn_options(chosen)) as client:
        try:
            yield gate, client, app.state.service
        finally:
            gate.open.set()


def _until(is_true: Any) -> None:
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_newer_frame_takes_the_place_of_the_one_that_waits_and_that_is_told_at_once(pipeline: Pipeline) -> None:
    with _gated(pipeline) as (gate, client, service), streaming(client) as stream:
        assert stream.ready["in_flight"] == 2
        for number in range(6):
            stream.send(number, PNG)
        assert [stream.receive_frame() for _ in range(3)] == [("dropped", 2), ("dropped", 3), ("dropped", 4)]
        assert service.admission.images == 2
        gate.open.set()
        assert sorted(stream.receive_frame() for _ in range(3)) == [("result", 0), ("result", 1), ("result", 5)]
        _until(lambda: service.admission.images == 0)
        assert gate.images == 3


def test_results_come_in_order_of_completion(pipeline: Pipeline) -> None:
    with _gated(pipeline) as (gate, client, _), streaming(client) as stream:
        stream.send(1, PNG)
        gate.taken.wait(30)
        stream.send(2, b"no image")
        assert stream.receive_frame() == ("error", 2)
        gate.open.set()
        assert stream.receive_frame() == ("result", 1)


def test_a_stream_takes_no_more_places_than_in_flight_whatever_it_sends(pipeline: Pipeline) -> None:
    with _gated(pipeline, max_waiting=4) as (gate, client, service), streaming(client) as stream:
        for number in range(30):
            stream.send(number, PNG)
        assert stream.receive_frame()[0] == "dropped"
        with ThreadPoolExecutor(2) as pool:
            others = [pool.submit(client.post, "/segment", content=PNG) for _ in range(2)]
            _until(lambda: service.admission.images == 4)
            gate.open.set()
            assert [other.result().status_code for other in others] == [200, 200]


def test_a_full_queue_is_an_error_of_the_frame_and_the_stream_goes_on(pipeline: Pipeline) -> None:
    with _gated(pipeline, max_waiting=2) as (gate, client, service), streaming(client) as stream:
        with ThreadPoolExecutor(2) as pool:
            others = [pool.submit(client.post, "/segment", content=PNG) for _ in range(2)]
            _until(lambda: service.admission.images == 2)
            stream.send(1, PNG)
            error = stream.receive()
            assert (error["type"], error["frame"]) == ("error", 1)
            assert (error["problem"]["code"], error["problem"]["reason"]) == ("overloaded", "queue_full")
            gate.open.set()
            assert [other.result().status_code for other in others] == [200, 200]
        stream.send(2, PNG)
        assert stream.receive_frame() == ("result", 2)


def test_a_frame_that_waits_too_long_gets_the_deadlines_error(pipeline: Pipeline) -> None:
    with _gated(pipeline) as (gate, client, service), streaming(client, "?timeout_ms=300") as stream:
        for number in (1, 2, 3):
            stream.send(number, PNG)
        errors = [stream.receive() for _ in range(3)]
        assert {error["problem"]["code"] for error in errors} == {"deadline_exceeded"}
        assert sorted(error["frame"] for error in errors) == [1, 2, 3]
        assert service.admission.images == 0
        gate.open.set()


def test_nothing_is_computed_for_a_stream_that_has_closed(pipeline: Pipeline) -> None:
    with _gated(pipeline) as (gate, client, service):
        with streaming(client) as stream:
            for number in range(5):
                stream.send(number, PNG)
            assert stream.receive_frame()[0] == "dropped"
        _until(lambda: service.admission.images == 0)
        gate.open.set()
        assert client.post("/segment", content=PNG).status_code == 200
        found = samples(client.get("/metrics").text)
        assert value(found, "solo_streams_open") == 0
        assert value(found, "solo_stream_frames_total", outcome="ok") is None
        assert value(found, "solo_stream_frames_total", outcome="gone") == 3  # two in places, one that waited
        assert gate.images <= 2  # the one that the engine had, and the request's


def test_shutting_down_answers_frames_in_places_then_ends_the_stream(pipeline: Pipeline) -> None:
    with _gated(pipeline) as (gate, client, service), streaming(client) as stream:
        opening = threading.Timer(0.3, gate.open.set)
        for number in range(4):
            stream.send(number, PNG)
        assert stream.receive_frame() == ("dropped", 2)
        opening.start()
        _drain(service, stream)
        received = [stream.receive()]
        while received[-1]["type"] != "end":
            received.append(stream.receive())
        assert sorted(each["frame"] for each in received if each["type"] == "result") == [0, 1]
        assert {each["problem"]["reason"] for each in received if "problem" in each} == {"draining"}
        assert stream.close_code() == 1001
        assert problem_of(client) == (503, "not_ready")


def _drain(service: Any, stream: Any) -> None:
    """As on SIGTERM, in the server's event loop."""
    loop = next(iter(service.accepted))._deadline._task.get_loop()
    loop.call_soon_threadsafe(service.drain)


@pytest.fixture(scope="module")
def folder(solo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(solo_bundle, folder / "cats" / "1")
    return folder


def test_a_stream_goes_on_with_a_newer_version_and_ends_when_its_model_is_unloaded(folder: Path) -> None:
    chosen = Settings(models=folder, model_control=True)
    repository = model_repository(None, folder, lambda path: Pipeline.open(path, threads=1))
    with (
        serving(create_app(repository, chosen), **uvicorn_options(chosen)) as client,
        streaming(client) as stream,
        streaming(client, "?model=cats&version=1") as pinned,
    ):
        assert stream.ready["model"] == {"name": "cats", "version": "1"}
        shutil.copytree(tiny_bundle("decoupled"), folder / "cats" / "2")
        client.post("/models/cats/load", timeout=300).raise_for_status()
        stream.send(1, PNG)
        ready, result = stream.receive(), stream.receive()
        assert (ready["type"], ready["model"]["version"]) == ("ready", "2")
        assert (result["frame"], result["model"]["version"]) == (1, "2")
        pinned.send(1, PNG)
        assert pinned.receive()["model"]["version"] == "1"
        client.post("/models/cats/unload").raise_for_status()
        for each in (stream, pinned):
            each.send(2, PNG)
            end = each.receive()
            assert (end["type"], end["problem"]["code"]) == ("end", "model_not_found")
            assert each.close_code() == 1011


def test_a_failure_of_the_server_is_an_error_of_the_frame(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Settings()
    app = create_app(pipeline, chosen)
    with serving(app, **uvicorn_options(chosen)) as client, streaming(client) as stream:
        with monkeypatch.context() as patch:
            patch.setattr(app.state.service, "count_pixels", None)
            stream.send(1, PNG)
            error = stream.receive()
            assert (error["frame"], error["problem"]["code"]) == (1, "internal")
            assert "NoneType" not in error["problem"]["detail"]
        stream.send(2, PNG)
        assert stream.receive_frame() == ("result", 2)


def test_each_frame_has_a_span_and_lines_of_its_own_and_the_stream_keeps_none(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    chosen = Settings()
    app = create_app(pipeline, chosen, traces=Traces(provider))
    with serving(app, **uvicorn_options(chosen)) as client, caplog.at_level(logging.DEBUG, "solo_server.access"):
        with streaming(client, additional_headers={"x-request-id": "cam-1"}) as stream:
            assert stream.socket.response is not None
            assert stream.socket.response.headers["x-request-id"] == "cam-1"
            for number in range(3):
                stream.send(number, PNG)
                stream.receive()
            stream.send(3, b"no image")
            assert stream.receive()["problem"]["request_id"] == "cam-1-4"
        _until(lambda: any(span.name == "GET /stream" for span in exporter.get_finished_spans()))
    spans = exporter.get_finished_spans()
    frames = [span for span in spans if span.name == "FRAME /stream"]
    assert [span.attributes["solo.code"] for span in frames if span.attributes] == [
        *3 * ["ok"],
        "unsupported_media_type",
    ]
    parents = [span.parent.span_id for span in spans if span.name == "decode" and span.parent]
    assert parents == [span.context.span_id for span in frames[:3] if span.context]
    (own,) = (span for span in spans if span.name == "GET /stream")
    assert own.attributes is not None
    assert (own.attributes["solo.code"], own.attributes["solo.images"]) == ("ok", 4)
    lines = [record.access for record in caplog.records if isinstance(getattr(record, "access", None), Access)]
    assert [(line.method, line.code) for line in lines if line.route == "/stream"] == [
        *3 * [("FRAME", "ok")],
        ("FRAME", "unsupported_media_type"),
        ("GET", "ok"),
    ]
