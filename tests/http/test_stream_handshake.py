"""Who may open a stream: keys in headers or in a subprotocol, the page's origin, complete handshakes, free places."""

import base64
import logging
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from solo_server.errors import OriginRefused
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.http.stream_handshake import check_origin, key_of
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving
from support.small_app import samples, value
from support.streams import HANDSHAKE, problem_of, raw_frame, raw_stream, read_raw, streaming
from websockets.exceptions import InvalidStatus

KEY = "0123456789abcdef0123456789abcdef"
AS_PROTOCOL = "solo.key." + base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("=")
PNG = encoded(smooth_image(60, 80))
PAGE = "https://example.org"


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def plain(pipeline: Pipeline) -> Iterator[httpx.Client]:
    chosen = Settings()
    with serving(create_app(pipeline, chosen), **uvicorn_options(chosen)) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(pipeline: Pipeline) -> Iterator[httpx.Client]:
    """Needs a key; pages of one other origin are allowed."""
    chosen = Settings(api_keys=f"alice:{KEY}", cors_origins=(PAGE,))
    with serving(create_app(pipeline, chosen), **uvicorn_options(chosen)) as client:
        yield client


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}])
def test_a_key_in_a_header_opens_a_stream(guarded: httpx.Client, headers: dict[str, str]) -> None:
    with streaming(guarded, additional_headers=headers) as stream:
        stream.send(1, PNG)
        assert stream.receive_frame() == ("result", 1)


def test_a_browsers_key_is_a_subprotocol_which_is_not_sent_back(guarded: httpx.Client) -> None:
    with streaming(guarded, subprotocols=["solo.v1", AS_PROTOCOL], origin=PAGE) as stream:
        assert stream.socket.subprotocol == "solo.v1"
        assert KEY not in str(stream.socket.response)
        assert AS_PROTOCOL not in str(stream.socket.response)


@pytest.mark.parametrize(
    "offers", [["solo.v1"], ["solo.v1", AS_PROTOCOL[:-1]], ["solo.v1", "solo.key."], ["solo.v1", "solo.key.%%%"]]
)
def test_without_a_known_key_the_answer_is_401_over_http(guarded: httpx.Client, offers: list[str]) -> None:
    with pytest.raises(InvalidStatus) as refused, streaming(guarded, subprotocols=offers):
        pass
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["www-authenticate"] == 'Bearer realm="solo"'
    assert b'"code":"unauthorized"' in (refused.value.response.body or b"")


def test_a_subprotocol_is_no_key_for_other_requests(guarded: httpx.Client) -> None:
    headers = {"sec-websocket-protocol": f"solo.v1, {AS_PROTOCOL}"}
    assert guarded.post("/segment", content=PNG, headers=headers).status_code == 401
    assert guarded.get("/stream", headers=headers).status_code == 401  # no handshake


def test_keys_are_in_no_line_of_the_log(guarded: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), streaming(guarded, subprotocols=["solo.v1", AS_PROTOCOL]) as stream:
        stream.send(1, PNG)
        stream.receive()
    own = [record for record in caplog.records if not record.name.startswith("websockets")]  # the test's client
    assert [record for record in own if KEY in record.getMessage() or AS_PROTOCOL in record.getMessage()] == []


def test_key_of_reads_base64url_without_padding() -> None:
    assert key_of(["solo.v1", AS_PROTOCOL]) == KEY
    assert key_of(["solo.key.Pz8_fn4-"]) == "???~~>"
    for bad in ([], ["solo.v1"], ["solo.key."], ["solo.key.A"], ["solo.key.\u00e9"]):
        assert key_of(bad) == ""


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "is_allowed"),
    [
        ("http://solo:8000", "solo:8000", (), True),
        ("https://solo.example.org", "solo.example.org", (), True),
        ("https://solo.example.org", "solo.example.org:443", (), True),
        ("http://SOLO:8000", "solo:8000", (), True),
        ("http://[::1]:8000", "[::1]:8000", (), True),
        ("http://solo:8001", "solo:8000", (), False),
        ("https://solo", "solo:80", (), False),
        ("https://evil.example", "solo", (), False),
        ("https://solo.evil.example", "solo", (), False),
        ("https://evil.example", "solo", (PAGE,), False),
        (PAGE, "solo", (PAGE,), True),
        ("https://evil.example", "solo", ("*",), True),
        ("null", "solo", (), False),
        ("", "solo", (), False),
        ("http://solo:port", "solo:port", (), False),
        ("file://solo", "solo", (), False),
        ("http://solo", "", (), False),
    ],
)
def test_a_page_must_be_of_this_host_or_of_an_allowed_origin(
    origin: str, host: str, allowed: tuple[str, ...], is_allowed: bool
) -> None:
    scope = {"headers": [(b"host", host.encode()), (b"origin", origin.encode())]}
    if is_allowed:
        check_origin(scope, allowed)
    else:
        with pytest.raises(OriginRefused):
            check_origin(scope, allowed)


def test_a_page_of_another_origin_is_answered_403(plain: httpx.Client) -> None:
    assert problem_of(plain, {"origin": "https://evil.example"}) == (403, "origin_refused")
    with streaming(plain, origin=str(plain.base_url).rstrip("/")):
        pass


@pytest.mark.parametrize(
    ("offers", "accepted"), [(None, None), (["solo.v1"], "solo.v1"), (["other", "solo.v1"], "solo.v1")]
)
def test_our_subprotocol_is_accepted_and_none_where_none_is_offered(
    plain: httpx.Client, offers: list[str] | None, accepted: str | None
) -> None:
    with streaming(plain, subprotocols=offers) as stream:
        assert stream.socket.subprotocol == accepted


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-WebSocket-Protocol": "solo.v2"},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Key": "c2hvcnQ="},
        {"Sec-WebSocket-Key": "not base64"},
        {"Upgrade": "h2c"},
        {"Connection": "keep-alive"},
        {"Content-Length": "5"},
    ],
)
def test_what_is_no_complete_handshake_is_answered_426(plain: httpx.Client, headers: dict[str, str]) -> None:
    assert problem_of(plain, headers) == (426, "upgrade_required")


def test_other_paths_ignore_a_handshake(plain: httpx.Client) -> None:
    handshake = HANDSHAKE.replace(b"/stream", b"/healthz") + b"\r\n"
    with socket.create_connection(("127.0.0.1", plain.base_url.port or 0), timeout=30) as raw:
        raw.sendall(handshake)
        assert raw.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert problem_of(plain, query="/stream") == (404, "not_found")


@pytest.mark.parametrize("extra", [b"x: y\r\n" * 140, b"x: " + b"y" * 9000 + b"\r\n", b"x: " + b"y" * 20_000 + b"\r\n"])
def test_headers_are_limited_in_a_handshake_too(plain: httpx.Client, extra: bytes) -> None:
    with socket.create_connection(("127.0.0.1", plain.base_url.port or 0), timeout=30) as raw:
        raw.sendall(HANDSHAKE + extra + b"\r\n")
        received = b""
        while chunk := raw.recv(4096):
            received += chunk
    assert received.startswith(b"HTTP/1.1 431 " if len(extra) > 16_000 else b"HTTP/1.1 400 ")
    assert b"application/problem+json" in received


def test_a_handshake_behind_an_unanswered_request_is_no_stream(plain: httpx.Client) -> None:
    first = b"POST /segment HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(PNG) + PNG
    with socket.create_connection(("127.0.0.1", plain.base_url.port or 0), timeout=30) as raw:
        raw.sendall(first + HANDSHAKE + b"\r\nGET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = b""
        while chunk := raw.recv(65536):
            received += chunk
    statuses = [line.split()[1] for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    statuses = [line.split(b"HTTP/1.1 ")[1][:3] for line in received.split(b"\n") if b"HTTP/1.1 " in line]
    assert statuses == [b"200", b"426", b"200"]


def test_a_stream_may_follow_answered_requests_on_its_connection(plain: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", plain.base_url.port or 0), timeout=30) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        received = b""
        while b'"ok"}' not in received:
            received += raw.recv(4096)
        raw.sendall(HANDSHAKE + b"\r\n")
        while b'"ready"' not in received:
            received += raw.recv(4096)
        raw.sendall(raw_frame(8, struct.pack(">H", 1000)))
        assert read_raw(raw)[1] == 1000


def test_streams_beyond_the_maximum_are_refused_and_a_place_is_free_again(pipeline: Pipeline) -> None:
    chosen = Settings(max_streams=3)
    with serving(create_app(pipeline, chosen), **uvicorn_options(chosen)) as client:
        with ExitStack() as stack:
            streams = [stack.enter_context(streaming(client)) for _ in range(3)]
            for _ in range(50):
                assert problem_of(client) == (503, "overloaded")
            for number, stream in enumerate(streams):
                stream.send(number, PNG)
                assert stream.receive_frame() == ("result", number)
            found = samples(client.get("/metrics").text)
            assert value(found, "solo_refused_total", code="overloaded", reason="streams_full") == 50
            assert value(found, "solo_streams_open") == 3
        with streaming(client) as stream:
            stream.send(1, PNG)
            assert stream.receive_frame() == ("result", 1)


def test_a_stream_counts_as_a_connection(pipeline: Pipeline) -> None:
    chosen = Settings(max_connections=2)
    with serving(create_app(pipeline, chosen), **uvicorn_options(chosen)) as client:
        url = client.base_url.join("/healthz")
        with raw_stream(client), raw_stream(client):
            client.close()
            refused = httpx.get(url)
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        while httpx.get(url).status_code != 200:
            pass  # until the server has seen both close


def test_a_server_that_is_not_ready_refuses_streams(pipeline: Pipeline) -> None:
    chosen, app = Settings(), create_app(pipeline)
    with serving(app, warm=True, **uvicorn_options(chosen)) as client:
        app.state.service._unready = "warming"
        assert problem_of(client) == (503, "not_ready")
        app.state.service._unready = None


def test_a_removed_key_ends_its_streams_and_no_others(pipeline: Pipeline, tmp_path: Path) -> None:
    file, other = tmp_path / "keys", KEY[::-1]
    file.write_text(f"alice:{KEY}\nbob:{other}\n")
    chosen = Settings(api_keys_file=file)
    with (
        serving(create_app(pipeline, chosen), **uvicorn_options(chosen)) as client,
        streaming(client, additional_headers={"x-api-key": KEY}) as removed,
        streaming(client, additional_headers={"x-api-key": other}) as kept,
    ):
        file.write_text(f"bob:{other}\n")
        os.utime(file, (1, 1))
        end = removed.receive()
        assert (end["type"], end["problem"]["code"]) == ("end", "unauthorized")
        assert removed.close_code() == 1008
        kept.send(1, PNG)
        assert kept.receive_frame() == ("result", 1)


def test_a_prefix_of_the_application_is_no_part_of_the_route(pipeline: Pipeline) -> None:
    chosen = Settings()
    with (
        serving(create_app(pipeline, chosen), root_path="/solo", **uvicorn_options(chosen)) as client,
        streaming(client) as stream,
    ):
        stream.send(1, PNG)
        assert stream.receive_frame() == ("result", 1)


def test_the_http_connection_hears_once_that_its_stream_is_lost(pipeline: Pipeline) -> None:
    """A worker reports closed connections to its supervisor there."""
    chosen, lost = Settings(), []
    options = uvicorn_options(chosen)
    http: type = options["http"]

    def connection_lost(connection: Any, problem: Exception | None) -> None:
        http.connection_lost(connection, problem)  # type: ignore[attr-defined]
        lost.append(connection)

    options["http"] = type("Reporting", (http,), {"connection_lost": connection_lost})
    with serving(create_app(pipeline, chosen), **options) as client:
        with streaming(client):
            pass
        client.get("/healthz").raise_for_status()
    assert len(lost) == 2  # the stream's, and the one of the request
