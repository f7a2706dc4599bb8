"""A request with `Upgrade` is parsed as the same request without it, wherever its bytes are split.

The oracle is h11, an independent implementation that parses a stream of requests. The bodies look like requests: parsed as such,
they would be smuggled ones.
"""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from solo_server.http.app import create_app
from solo_server.http.connections import BoundedProtocol, uvicorn_options
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving
from uvicorn.server import ServerState

Requests = list[tuple[str, str, bytes]]
"""Method, target and body of each."""

PNG = encoded(smooth_image(60, 80))
HIDDEN = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
PLAIN = b"POST /plain?a=b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
UPGRADES = {
    "java": b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\n",
    "websocket": b"connection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
    "two fields": b"connection: keep-alive\r\nConnection: UPGRADE\r\nUPGRADE: a/1, b\r\nupgrade: c\r\n",
    "last": b"connection: upgrade, close\r\nupgrade: tls/1.0\r\n",
}
FRAMED = {
    "length": b"content-length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "chunks": b"transfer-encoding: chunked\r\n\r\n5\r\nGET /\r\n%x\r\n%s\r\n0\r\nx-trailer: y\r\n\r\n"
    % (len(HIDDEN), HIDDEN),
    "no body": b"\r\n",
}
STREAMS = {
    f"{upgrade}, {frames}": PLAIN + b"POST /first HTTP/1.1\r\nhost: x\r\n" + UPGRADES[upgrade] + FRAMED[frames] + PLAIN
    for upgrade in UPGRADES
    for frames in FRAMED
}


def _by_h11(stream: bytes) -> Requests:
    """The requests as h11 parses them, to the end of the stream or to a request that closes the connection."""
    connection, requests = h11.Connection(h11.SERVER), Requests()
    connection.receive_data(stream)
    while (event := connection.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
        if isinstance(event, h11.Request):
            requests.append((event.method.decode(), event.target.decode(), b""))
        if isinstance(event, h11.Data):
            method, target, body = requests[-1]
            requests[-1] = method, target, body + bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                break
            connection.start_next_cycle()
    return requests


class _Transport(asyncio.Transport):
    """Keeps the written bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self._closing = b"", False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Nothing to pause: the test delivers the bytes itself."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""


def _by_server(pieces: list[bytes]) -> tuple[Requests, bytes]:
    """The requests that the application gets, and the bytes that the caller gets, if the stream arrives in these pieces."""
    requests = Requests()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        query = f"?{scope['query_string'].decode()}" if scope["query_string"] else ""
        requests.append((scope["method"], scope["path"] + query, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> bytes:
        options = uvicorn_options(Settings())
        config = uvicorn.Config(application, lifespan="off", log_level="critical", **options)
        config.load()
        transport, make = _Transport(), options["http"]
        protocol: BoundedProtocol = make(config, ServerState(), {}, asyncio.get_running_loop())
        protocol.connection_made(transport)
        for piece in pieces:
            if not transport.is_closing():
                protocol.data_received(piece)
            for _ in range(4):
                await asyncio.sleep(0)
        for _ in range(12):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        return transport.written

    return requests, asyncio.run(run())


def _statuses(written: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", written)]


def _check_same(stream: bytes, cuts: list[int]) -> None:
    expected = _by_h11(stream)
    assert len(expected) >= 2
    requests, written = _by_server([stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])])
    assert requests == expected
    assert _statuses(written) == [200] * len(expected)


@pytest.mark.parametrize("name", STREAMS)
def test_an_upgrade_that_is_not_spoken_changes_no_request_at_any_split(name: str) -> None:
    stream = STREAMS[name]
    for cut in range(len(stream)):
        _check_same(stream, [cut])


def test_a_request_is_the_same_byte_by_byte() -> None:
    for stream in STREAMS.values():
        _check_same(stream, list(range(1, len(stream))))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(sorted(STREAMS)), min_size=1, max_size=3), st.data())
def test_pipelined_requests_are_the_same_in_any_pieces(names: list[str], data: st.DataObject) -> None:
    stream = b"".join(STREAMS[name] for name in names)
    cuts = data.draw(st.lists(st.integers(1, len(stream) - 1), max_size=6, unique=True).map(sorted))
    _check_same(stream, cuts)


def test_an_ignored_field_counts_towards_the_limit_of_the_head() -> None:
    request = b"GET / HTTP/1.1\r\nx-kept: 1\r\nconnection: upgrade\r\nupgrade: %s\r\n\r\n"
    size = Settings().max_header_bytes
    for length, status in ((size - 100, 200), (size, 431)):
        _, written = _by_server([request % (b"a" * length)])
        assert _statuses(written) == [status]


@pytest.mark.parametrize("target", [b"/x", b"x:443"])
def test_connect_is_refused_and_nothing_behind_it_is_read(target: bytes) -> None:
    sent = b"CONNECT " + target + b" HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(HIDDEN)
    for pieces in ([sent + HIDDEN], [sent, HIDDEN], [PLAIN + sent, HIDDEN]):
        requests, written = _by_server(pieces)
        assert [target for _, target, _ in requests] == ["/plain?a=b"] * (PLAIN in pieces[0])
        if not requests:
            assert json.loads(written.partition(b"\r\n\r\n")[2])["detail"].startswith("CONNECT is not supported")


@pytest.mark.parametrize(
    "sent",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + UPGRADES["java"] + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + UPGRADES["java"] + b"content-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + UPGRADES["java"] + b"transfer-encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + UPGRADES["java"] + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["http2 preface", "two framings", "two lengths", "no framing", "no chunk"],
)
def test_invalid_framing_is_refused_with_an_upgrade_as_without(sent: bytes) -> None:
    requests, written = _by_server([sent + HIDDEN])
    assert requests == []
    assert _statuses(written) == [400]


def test_trailers_are_no_headers() -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        seen.extend(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    with serving(application, "off", **uvicorn_options(Settings())) as client, _connected(client) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-api-key: k\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 200")
    assert seen == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]


@pytest.fixture(scope="module")
def http(solo_bundle: Path) -> Iterator[httpx.Client]:
    pipeline, chosen = Pipeline.open(solo_bundle, threads=1), Settings()
    with serving(create_app(pipeline, chosen), **uvicorn_options(chosen)) as client:
        yield client


def _connected(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=60)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("split", [False, True], ids=["one packet", "two packets"])
def test_an_image_sent_with_an_upgrade_is_segmented(http: httpx.Client, chunked: bool, split: bool) -> None:
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(PNG)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PNG), PNG) if chunked else PNG
    head = b"POST /segment HTTP/1.1\r\nhost: x\r\n" + UPGRADES["java"] + framing + b"\r\n\r\n"
    with _connected(http) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for sent in (head, body) if split else (head + body,):
            raw.sendall(sent)
        answer = _answer(raw)
        assert answer["instances"] == http.post("/segment", content=PNG).json()["instances"]
        raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")  # the connection stays open
        assert _answer(raw) == {"status": "ok"}


def test_v2_ignores_an_upgrade_too(http: httpx.Client) -> None:
    body = json.dumps({"inputs": [{"name": "NONE", "datatype": "BYTES", "shape": [1], "data": ["x"]}]}).encode()
    head = b"POST /v2/models/tiny-solo/infer HTTP/1.1\r\nhost: x\r\n" + UPGRADES["websocket"]
    with _connected(http) as raw:
        raw.sendall(head + b"content-length: %d\r\n\r\n" % len(body))
        raw.sendall(body)
        assert _answer(raw)["error"].startswith("inputs: must be one input")


def _answer(raw: socket.socket) -> Any:
    """The JSON of one answer."""
    response = h11.Connection(h11.CLIENT)
    response.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    response.send(h11.EndOfMessage())
    body = b""
    while not isinstance(event := response.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            response.receive_data(raw.recv(65536))
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
    return json.loads(body)
