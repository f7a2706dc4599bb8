"""`WS /stream` against a real server: the protocol of docs/stream.md, message by message."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving
from support.small_app import samples, value
from support.streams import BINARY, CONTINUATION, HANDSHAKE, raw_frame, raw_stream, read_raw, streaming

PNG = encoded(smooth_image(60, 80))


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def http(pipeline: Pipeline) -> Iterator[httpx.Client]:
    chosen = Settings()
    with serving(create_app(pipeline, chosen), **uvicorn_options(chosen)) as client:
        yield client


def test_the_first_message_names_model_classes_and_frames_on_the_way(http: httpx.Client) -> None:
    model = http.get("/model").json()
    with streaming(http) as stream:
        assert stream.ready == {
            "type": "ready",
            "model": {"name": model["name"], "version": model["version"]},
            "classes": ["cat", "dog", "traffic light"],
            "in_flight": 2,
        }
        assert stream.socket.subprotocol == "solo.v1"


def test_a_result_is_the_answer_of_segment_with_the_frames_id(http: httpx.Client) -> None:
    query = "?score_threshold=0.2&max_instances=7&classes=cat&nms=none"
    answer = http.post(f"/segment{query}", content=PNG).json()
    with streaming(http, query) as stream:
        stream.send(4_294_967_295, PNG)
        result = stream.receive()
    assert list(result)[:2] == ["type", "frame"]
    assert (result.pop("type"), result.pop("frame")) == ("result", 4_294_967_295)
    assert result.keys() == answer.keys()
    assert result.pop("timings_ms").keys() == answer.pop("timings_ms").keys()
    assert result == answer


def test_ids_are_the_clients_own_and_may_repeat(http: httpx.Client) -> None:
    with streaming(http) as stream:
        for number in (7, 7, 0):
            stream.send(number, PNG)
            assert stream.receive_frame() == ("result", number)


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (b"", "empty_body"),
        (b"no image", "unsupported_media_type"),
        (PNG[:-40], "image_damaged"),
        (b"BM" + bytes(16) + struct.pack("<ii", 60000, 60000) + bytes(100), None),
    ],
    ids=["empty", "text", "cut", "huge"],
)
def test_a_frame_that_is_no_image_fails_alone(http: httpx.Client, image: bytes, code: str | None) -> None:
    expected = http.post("/segment", content=image).json()
    with streaming(http) as stream:
        stream.send(3, image)
        error = stream.receive()
        assert (error["type"], error["frame"]) == ("error", 3)
        problem = error["problem"]
        assert {**problem, "request_id": ""} == {**expected, "request_id": ""}
        assert code in (None, problem["code"])
        stream.send(4, PNG)
        assert stream.receive_frame() == ("result", 4)


def test_a_message_without_an_id_is_an_error_and_ten_in_a_row_end_the_stream(http: httpx.Client) -> None:
    with streaming(http) as stream:
        for bad in ("text", b"abc"):
            stream.socket.send(bad)
            error = stream.receive()
            assert (error["type"], error["frame"], error["problem"]["code"]) == ("error", None, "malformed_request")
        stream.send(1, PNG)  # begins a new row
        assert stream.receive_frame() == ("result", 1)
        for _ in range(9):
            stream.socket.send("text")
            assert stream.receive()["type"] == "error"
        stream.socket.send("text")
        end = stream.receive()
        assert (end["type"], end["problem"]["code"]) == ("end", "malformed_request")
        assert stream.close_code() == 1008


def test_a_frame_may_come_in_fragments_with_pings_between_them(http: httpx.Client) -> None:
    message = struct.pack(">I", 9) + PNG
    with raw_stream(http) as raw:
        raw.sendall(raw_frame(BINARY, message[:1], is_last=False))
        for at in range(1, len(message) - 1, 97):
            raw.sendall(raw_frame(9, b"still here") + raw_frame(CONTINUATION, message[at : at + 97], is_last=False))
        raw.sendall(raw_frame(CONTINUATION, b""))
        received = b""
        while b'"instances"' not in received:
            received += raw.recv(1 << 16)
        raw.sendall(raw_frame(8, struct.pack(">H", 1000)))
        _, code = read_raw(raw)
    assert b'"frame":9' in received
    assert code == 1000


def test_the_deadline_of_a_stream_is_one_of_each_frame(http: httpx.Client) -> None:
    with streaming(http, "?timeout_ms=60000") as stream:
        stream.send(1, PNG)
        assert stream.receive_frame() == ("result", 1)


@pytest.mark.parametrize(
    ("query", "status", "code", "detail"),
    [
        ("?score-treshold=1", 422, "invalid_query", "did you mean score_threshold?"),
        ("?score_threshold=2", 422, "invalid_query", "score_threshold"),
        ("?classes=unicorn", 422, "invalid_query", "no class 'unicorn'"),
        ("?format=overlay", 422, "invalid_query", "a stream answers JSON"),
        ("?overlay=true", 422, "invalid_query", "a stream answers JSON"),
        ("?timeout_ms=0", 422, "invalid_query", "timeout_ms: must be"),
        ("?timeout_ms=1&timeout_ms=2", 422, "invalid_query", "timeout_ms: is given several times"),
        ("?model=nothing", 404, "model_not_found", "no model 'nothing'"),
        ("?version=7", 404, "model_not_found", "of version '7'"),
    ],
)
def test_a_bad_parameter_is_refused_before_the_upgrade(
    http: httpx.Client, query: str, status: int, code: str, detail: str
) -> None:
    sent = dict(line.split(": ", 1) for line in HANDSHAKE.decode().split("\r\n")[1:] if line)
    answer = http.get(f"/stream{query}", headers=sent)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert detail in answer.json()["detail"]
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_the_model_and_the_version_of_a_stream_can_be_named(http: httpx.Client) -> None:
    model = http.get("/model").json()
    with streaming(http, f"?model={model['name']}&version={model['version']}") as stream:
        stream.send(1, PNG)
        assert stream.receive()["model"] == stream.ready["model"]


def test_streams_and_frames_are_counted(pipeline: Pipeline) -> None:
    chosen = Settings()
    with serving(create_app(pipeline, chosen), **uvicorn_options(chosen)) as client:
        with streaming(client) as stream:
            stream.send(1, PNG)
            stream.receive()
            stream.send(2, b"no image")
            stream.receive()
            during = samples(client.get("/metrics").text)
            assert value(during, "solo_streams_open") == 1
            assert value(during, "solo_requests_in_progress") == 1  # the scrape itself
        with streaming(client):  # the first stream has ended when this one is open: one event loop serves both
            found = samples(client.get("/metrics").text)
    assert value(found, "solo_stream_frames_total", outcome="ok") == 1
    assert value(found, "solo_stream_frames_total", outcome="unsupported_media_type") == 1
    assert value(found, "solo_images_total", model="tiny-solo", outcome="ok") == 1
    assert value(found, "solo_stage_duration_seconds_count", model="tiny-solo", stage="decode") == 1
    assert value(found, "solo_requests_total", route="/stream", outcome="ok", code="ok") == 1
    assert value(found, "solo_request_duration_seconds_count", route="/stream") is None
    assert value(found, "solo_received_bytes_total") == len(PNG) + 4 + 12


def test_a_plain_request_for_the_path_is_answered_426(http: httpx.Client) -> None:
    answer = http.get("/stream")
    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")
    assert answer.headers["upgrade"] == "websocket"


def test_every_message_is_one_line_of_json(http: httpx.Client) -> None:
    with streaming(http) as stream:
        stream.send(1, PNG)
        text = stream.socket.recv(30)
    assert isinstance(text, str)
    assert "\n" not in text
    assert json.loads(text)["type"] == "result"
