"""Clients of a stream that flood, stall, trickle, lie or never read: each costs little, ends alone, and other callers are answered.

Limits are far below the defaults, so that a test waits a second and not a minute.
"""

import asyncio
import gc
import socket
import struct
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.http.stream_connection import StreamConnection, StreamLimits, stream_options
from solo_server.http.stream_session import StreamSession
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving
from support.small_app import samples, value
from support.streams import BINARY, CLOSE, CONTINUATION, PING, TEXT, raw_frame, raw_stream, read_raw, streaming

PNG = encoded(smooth_image(60, 80))
LIMITS = StreamLimits(idle_s=60, stall_s=0.6, bytes_per_s=10_000)
MAX_BYTES = 50_000


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@contextmanager
def _limited(pipeline: Pipeline, limits: StreamLimits = LIMITS, **options: Any) -> Iterator[httpx.Client]:
    chosen = Settings()
    options = {**uvicorn_options(chosen), **stream_options(limits, MAX_BYTES), **options}
    with serving(create_app(pipeline, chosen), **options) as client:
        yield client
        assert client.post("/segment", content=PNG).status_code == 200


@pytest.fixture(scope="module")
def http(pipeline: Pipeline) -> Iterator[httpx.Client]:
    with _limited(pipeline) as client:
        yield client


def _check_ended(raw: socket.socket, problem: str, close_code: int) -> None:
    """The last message is `end`, and then the server closes."""
    messages, code = read_raw(raw)
    assert (messages[-1]["type"], messages[-1]["problem"]["code"], code) == ("end", problem, close_code)


@pytest.mark.parametrize("size", [MAX_BYTES + 5, 1 << 30, (1 << 63) - 1], ids=["one", "gigabyte", "largest"])
def test_a_frame_that_is_too_large_ends_the_stream_before_its_bytes_are_kept(http: httpx.Client, size: int) -> None:
    with raw_stream(http) as raw:
        raw.sendall(bytes([0x80 | BINARY, 0xFF]) + struct.pack(">Q", size) + bytes(4) + bytes(1000))
        _check_ended(raw, "body_too_large", 1009)


def test_the_largest_frame_is_taken(http: httpx.Client) -> None:
    with streaming(http) as stream:
        stream.send(1, PNG + bytes(MAX_BYTES - len(PNG)))
        assert stream.receive_frame() == ("result", 1)


def test_fragments_are_limited_together(http: httpx.Client) -> None:
    with raw_stream(http) as raw:
        raw.sendall(raw_frame(BINARY, bytes(30_000), is_last=False, mask=bytes(4)))
        raw.sendall(raw_frame(CONTINUATION, bytes(30_000), is_last=False, mask=bytes(4)))
        _check_ended(raw, "body_too_large", 1009)


@pytest.mark.parametrize(
    "flood",
    [
        raw_frame(PING, b"") * 5000,
        raw_frame(BINARY, b"", is_last=False) + raw_frame(CONTINUATION, b"", is_last=False) * 5000,
        raw_frame(BINARY, b"\0\0\0\1") * 5000,
    ],
    ids=["pings", "empty fragments", "empty frames"],
)
def test_a_flood_of_small_messages_ends_the_stream(http: httpx.Client, flood: bytes) -> None:
    with raw_stream(http) as raw:
        raw.sendall(flood)
        _check_ended(raw, "malformed_request", 1008)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x82\x04abcd",  # not masked
        raw_frame(CONTINUATION, b"x"),
        raw_frame(3, b"reserved"),
        raw_frame(PING, bytes(126)),
        bytes([0xC0 | BINARY, 0x80]) + bytes(4),  # as if compressed
        b"GET / HTTP/1.1\r\n\r\n",
        raw_frame(CLOSE, b"\x03"),
    ],
    ids=["not masked", "no first fragment", "opcode", "long ping", "compressed", "http", "bad close"],
)
def test_bytes_that_are_no_websocket_messages_end_the_stream(http: httpx.Client, sent: bytes) -> None:
    with raw_stream(http) as raw:
        raw.sendall(sent)
        _check_ended(raw, "malformed_request", 1002)


def test_a_text_need_not_be_unicode_to_be_refused(http: httpx.Client) -> None:
    with raw_stream(http) as raw:
        raw.sendall(raw_frame(TEXT, b"\xff\xfe"))
        received = b""
        while b'"error"' not in received:
            received += raw.recv(1 << 16)
        raw.sendall(raw_frame(CLOSE, struct.pack(">H", 1000)))
        assert read_raw(raw)[1] == 1000


def test_a_frame_that_trickles_ends_the_stream(http: httpx.Client) -> None:
    with raw_stream(http) as raw:
        raw.sendall(bytes([0x80 | BINARY, 0xFE]) + struct.pack(">H", 40_000) + bytes(4))
        _trickle(raw, b"a")
        _check_ended(raw, "request_timeout", 1008)


def test_fragments_that_trickle_end_the_stream(http: httpx.Client) -> None:
    with raw_stream(http) as raw:
        raw.sendall(raw_frame(BINARY, b"a", is_last=False))
        _trickle(raw, raw_frame(CONTINUATION, b"a", is_last=False))
        _check_ended(raw, "request_timeout", 1008)


def _trickle(raw: socket.socket, piece: bytes) -> None:
    raw.settimeout(0.05)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            raw.sendall(piece)
            if b'"end"' in raw.recv(1 << 16, socket.MSG_PEEK):
                break
        except TimeoutError:
            pass
        time.sleep(0.02)
    raw.settimeout(30)


def test_a_stream_without_frames_ends(pipeline: Pipeline) -> None:
    limits = StreamLimits(idle_s=0.4, stall_s=60, bytes_per_s=10_000)
    with _limited(pipeline, limits) as client, raw_stream(client) as raw:
        raw.sendall(raw_frame(PING, b""))  # is no frame
        _check_ended(raw, "request_timeout", 1008)


def test_pings_without_pongs_close_the_stream(pipeline: Pipeline) -> None:
    with _limited(pipeline, ws_ping_interval=0.2, ws_ping_timeout=0.2) as client, raw_stream(client) as raw:
        messages, code = read_raw(raw)
        assert [each["type"] for each in messages] == ["ready"]
        assert code == 1011


def test_a_client_that_never_reads_keeps_no_results_and_is_ended(pipeline: Pipeline) -> None:
    limits = StreamLimits(idle_s=60, stall_s=1.5, bytes_per_s=10_000)
    with _limited(pipeline, limits) as client:
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect(("127.0.0.1", client.base_url.port))
            raw.settimeout(20)
            _open(raw)
            frame = raw_frame(BINARY, b"\0\0\0\1" + PNG, mask=bytes(4))
            sent = 0
            with pytest.raises(OSError):  # noqa: PT012 - until the server has reset the connection
                while True:
                    raw.sendall(frame)
                    sent += 1
        found = samples(client.get("/metrics").text)
        assert value(found, "solo_requests_total", route="/stream", outcome="ok", code="request_timeout") == 1
        assert value(found, "solo_streams_open") == 0
        results = value(found, "solo_stream_frames_total", outcome="ok") or 0
        assert results < sent


def _open(raw: socket.socket) -> None:
    from support.streams import HANDSHAKE

    raw.sendall(HANDSHAKE + b"\r\n")
    assert raw.recv(16).startswith(b"HTTP/1.1 101")


def test_pings_of_a_client_that_never_reads_fill_no_memory() -> None:
    """Without a server: the transport only counts."""

    class Transport(asyncio.Transport):
        written = 0

        def write(self, data: Any) -> None:
            self.written += len(data)

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return default

        def is_closing(self) -> bool:
            return False

    async def pongs(is_read: bool) -> int:
        connection, transport = _connection(), Transport()
        connection.connection_made(transport)
        connection.handshake_complete = True
        connection.conn.state = type(connection.conn.state).OPEN
        connection.conn.parser = super(type(connection.conn), connection.conn).parse()
        next(connection.conn.parser)
        if not is_read:
            connection.writable.clear()
        connection.data_received(raw_frame(PING, bytes(100)) * 500)
        if connection._check_timer is not None:
            connection._check_timer.cancel()
        return transport.written

    assert asyncio.run(pongs(is_read=True)) == 500 * 102
    assert asyncio.run(pongs(is_read=False)) == 0


def _connection() -> StreamConnection:
    import uvicorn
    from uvicorn.server import ServerState

    async def application(scope: Any, receive: Any, send: Any) -> None:
        """Answers nothing."""

    options = stream_options(LIMITS, MAX_BYTES)
    config = uvicorn.Config(application, lifespan="off", log_level="critical", **options)
    config.load()
    connection: StreamConnection = options["ws"](config, ServerState(), {}, asyncio.get_running_loop())
    return connection


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_nothing_is_left_of_a_client_that_disappears_in_the_middle_of_a_frame(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, is_reset: bool
) -> None:
    connections, sessions = weakref.WeakSet[Any](), weakref.WeakSet[Any]()
    _watch(monkeypatch, StreamConnection, connections)
    _watch(monkeypatch, StreamSession, sessions)
    with _limited(pipeline) as client:
        for _ in range(20):
            with raw_stream(client) as raw:
                raw.sendall(raw_frame(BINARY, b"\0\0\0\1" + PNG))
                raw.sendall(raw_frame(BINARY, bytes(5000), is_last=False)[:3000])
                if is_reset:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        deadline = time.monotonic() + 30
        while connections or sessions:
            gc.collect()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert value(samples(client.get("/metrics").text), "solo_streams_open") == 0


def _watch(monkeypatch: pytest.MonkeyPatch, kind: type, made: Any) -> None:
    begin = kind.__init__  # type: ignore[misc]  # of a class, on purpose

    def noted(self: Any, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        made.add(self)

    monkeypatch.setattr(kind, "__init__", noted)


def test_other_callers_are_answered_during_a_flood_of_frames(http: httpx.Client) -> None:
    with raw_stream(http) as raw:
        raw.settimeout(0.01)
        frame = raw_frame(BINARY, b"\0\0\0\1" + PNG, mask=bytes(4)) * 20
        for _ in range(10):
            for _ in range(5):
                try:
                    raw.send(frame)
                    raw.recv(1 << 20)
                except TimeoutError:
                    pass
            assert httpx.post(http.base_url.join("/segment"), content=PNG, timeout=60).status_code == 200
