"""Raw sockets against a real server: callers that trickle, stall, lie or never read do not block other callers.

Limits are far below the defaults, so that a test waits a second and not a minute. The application stands in for `/segment`, and
reads its body as the real one does.
"""

import asyncio
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from solo_server.http.app import create_app
from solo_server.http.connections import SHARED_SECONDS, ConnectionLimits, bounded_protocol, uvicorn_options
from solo_server.http.problems import SECURITY_HEADERS
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving

LIMITS = ConnectionLimits(
    max_connections=400, max_header_bytes=2048, header_timeout_s=0.6, stall_s=0.6, bytes_per_s=10_000
)
PNG = encoded(smooth_image(60, 80))
HEAD = b"POST /segment HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@contextmanager
def _bounded(
    app: Any, limits: ConnectionLimits = LIMITS, keep_alive_s: float = 30, lifespan: Any = "off"
) -> Iterator[httpx.Client]:
    options = uvicorn_options(Settings()) | {"http": bounded_protocol(limits), "timeout_keep_alive": keep_alive_s}
    with serving(app, lifespan, **options) as client:
        yield client


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the size of the body; for `/large/N` with N bytes; for `/unread` without reading the body."""
    size, more = 0, scope["path"] != "/unread"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    body = b"x" * int(scope["path"][7:]) if scope["path"].startswith("/large/") else str(size).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]}
    )
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def echo() -> Iterator[httpx.Client]:
    with _bounded(_echo) as client:
        yield client


@contextmanager
def _connected(client: httpx.Client, sent: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=10) as raw:
        raw.sendall(sent)
        yield raw


def _read_all(raw: socket.socket) -> bytes:
    received = b""
    try:
        while chunk := raw.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass  # closed too
    return received


def _check_refused(received: bytes, status: int, code: str) -> None:
    """Exactly one answer: a complete problem, like any other."""
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert lines[0].startswith(f"HTTP/1.1 {status} "), received
    assert len(body) == int(headers["content-length"])
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert SECURITY_HEADERS.items() <= headers.items()
    problem = json.loads(body)
    assert (problem["status"], problem["code"], problem["request_id"]) == (status, code, headers["x-request-id"])


def _trickle(raw: socket.socket, piece: bytes, seconds: float) -> float:
    """Send `piece` every 50 ms until the other side closes, for at most `seconds`. Returns the seconds that it took."""
    start = time.monotonic()
    try:
        while time.monotonic() - start < seconds:
            raw.sendall(piece)
            time.sleep(0.05)
    except OSError:
        pass
    return time.monotonic() - start


@pytest.mark.parametrize("before", [b"", HEAD + b"content-length: 2\r\n\r\nab"], ids=["first", "after another"])
def test_headers_that_trickle_are_answered_408(echo: httpx.Client, before: bytes) -> None:
    with _connected(echo, before) as raw:
        if before:
            assert raw.recv(65536).endswith(b"\r\n\r\n2")
        raw.sendall(b"GET / HTTP/1.1\r\nx: ")
        assert 0.4 < _trickle(raw, b"a", 5) < 4.5
        _check_refused(_read_all(raw), 408, "request_timeout")


@pytest.mark.parametrize("piece", [b"", b"\r\n"])
def test_a_connection_without_a_request_is_closed_without_an_answer(echo: httpx.Client, piece: bytes) -> None:
    with _connected(echo) as raw:
        if piece:
            _trickle(raw, piece, 0.4)
        assert _read_all(raw) == b""


def test_two_hundred_trickling_callers_do_not_keep_an_honest_one_out(pipeline: Pipeline) -> None:
    full = replace(LIMITS, max_connections=100, header_timeout_s=30)
    with _bounded(create_app(pipeline), full, lifespan="on") as client, ExitStack() as stack:
        slow = [stack.enter_context(_connected(client, b"POST /segment HTTP/1.1\r\nx: ")) for _ in range(200)]
        stop = threading.Event()

        def go_on() -> None:
            while not stop.wait(0.05):
                for raw in slow:
                    with suppress(OSError):  # evicted
                        raw.sendall(b"a")

        trickling = threading.Thread(target=go_on)
        trickling.start()
        try:
            for _ in range(10):
                start = time.monotonic()
                fresh = httpx.post(client.base_url.join("/segment"), content=PNG, timeout=10)
                assert fresh.status_code == 200
                assert time.monotonic() - start < 8
        finally:
            stop.set()
            trickling.join()
        _check_refused(_read_all(slow[0]), 503, "overloaded")


def test_an_expired_connection_closes_with_its_next_answer() -> None:
    with _bounded(_echo, replace(LIMITS, lasting_s=0.0)) as client:
        answers = [client.post("/segment", content=b"x" * size) for size in (3, 300_000)]
        assert [(answer.text, answer.headers.get("connection")) for answer in answers] == [
            ("3", "close"),
            ("300000", "close"),
        ]
        with _connected(client, 2 * (HEAD + b"content-length: 2\r\n\r\nhi")) as raw:
            assert _read_all(raw).count(b"HTTP/1.1 200 OK") == 1  # of two pipelined requests only the first is answered


def test_with_one_worker_connections_do_not_expire(echo: httpx.Client) -> None:
    assert "connection" not in echo.post("/segment", content=b"hi").headers
    for workers, lasting_s in ((1, math.inf), (2, SHARED_SECONDS)):
        assert uvicorn_options(Settings(workers=workers))["http"].limits.lasting_s == lasting_s


def test_where_every_connection_is_in_a_request_the_next_is_refused_at_once(echo: httpx.Client) -> None:
    upload = HEAD + b"content-length: 9\r\n\r\n1234"
    with _bounded(_echo, replace(LIMITS, max_connections=3)) as client, ExitStack() as stack:
        busy = [stack.enter_context(_connected(client, upload)) for _ in range(3)]
        _wait_until_busy(client)
        start = time.monotonic()
        refused = httpx.post(client.base_url.join("/"), content=b"abc")
        assert time.monotonic() - start < 5
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        for raw in busy:
            raw.sendall(b"56789")
            assert raw.recv(65536).endswith(b"\r\n\r\n9")
        assert httpx.post(client.base_url.join("/"), content=b"abc").text == "3"


def _wait_until_busy(client: httpx.Client) -> None:
    """Wait until the server has the headers of all connections: then a further caller is refused."""
    deadline = time.monotonic() + 5
    while httpx.get(client.base_url).status_code != 503:
        assert time.monotonic() < deadline


def test_more_than_can_be_refused_are_closed_unread() -> None:
    with _bounded(_echo, replace(LIMITS, max_connections=1, header_timeout_s=30)) as client, ExitStack() as stack:
        stack.enter_context(_connected(client, HEAD + b"content-length: 9\r\n\r\n1234"))
        _wait_until_busy(client)
        raws = [stack.enter_context(_connected(client)) for _ in range(80)]
        start = time.monotonic()
        assert _read_all(raws[-1]) == b""
        assert time.monotonic() - start < 10  # sooner than any time limit


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nx: " + b"a" * 5000,
        b"GET / HTTP/1.1\r\nx: " + b"a" * 5000 + b"\r\n\r\n",
        b"GET /" + b"a" * 5000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 1000 + b"\r\n",
    ],
    ids=["endless", "complete", "path", "many"],
)
def test_headers_that_are_too_large_are_answered_431(echo: httpx.Client, sent: bytes) -> None:
    with _connected(echo, sent) as raw:
        _check_refused(_read_all(raw), 431, "headers_too_large")


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
        HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        HEAD + b"content-length: -3\r\n\r\nabc",
        HEAD + b"content-length: 0x3\r\n\r\nabc",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nabc",
        HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabcdef\r\n",
        b"GET http://host HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_400(echo: httpx.Client, sent: bytes) -> None:
    with _connected(echo, sent) as raw:
        _check_refused(_read_all(raw), 400, "malformed_request")


def test_bytes_beyond_the_content_length_do_not_affect_the_answer(echo: httpx.Client) -> None:
    with _connected(echo, HEAD + b"content-length: 3\r\n\r\nabcdefgh\r\n\r\n") as raw:
        received = _read_all(raw)
        assert received.startswith(b"HTTP/1.1 200")
        assert received.endswith(b"\r\n\r\n3")


def test_a_malformed_request_does_not_affect_the_answer_of_the_one_before(echo: httpx.Client) -> None:
    for target in (b"http://host", b"/\xff", b"x:443"):
        method = b"CONNECT " if target == b"x:443" else b"GET "
        with _connected(echo, HEAD + b"content-length: 3\r\n\r\nabc" + method + target + b" HTTP/1.1\r\n\r\n") as raw:
            assert _read_all(raw).endswith(b"\r\n\r\n3")


def test_pipelined_requests_are_answered_in_order(echo: httpx.Client) -> None:
    requests = b"".join(HEAD + b"content-length: %d\r\n\r\n" % n + b"a" * n for n in (5, 3, 8))
    with _connected(echo, requests + b"GET / HTTP/1.1\r\nx: ") as raw:
        received = _read_all(raw)
        assert [part[:1] for part in received.split(b"\r\n\r\n")[1:4]] == [b"5", b"3", b"8"]
        assert b" 408 " in received


def test_the_rest_of_an_unread_body_is_not_waited_for_long(echo: httpx.Client) -> None:
    with _connected(echo, b"POST /unread HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n") as raw:
        assert 0.4 < _trickle(raw, b"a", 5) < 2
        assert _read_all(raw).endswith(b"\r\n\r\n0")


def test_a_connection_stays_open_if_an_unread_body_arrives_soon(echo: httpx.Client) -> None:
    with _connected(echo, b"POST /unread HTTP/1.1\r\ncontent-length: 5\r\n\r\n") as raw:
        assert raw.recv(65536).endswith(b"\r\n\r\n0")
        raw.sendall(b"abcde" + HEAD + b"content-length: 1\r\n\r\na")
        assert raw.recv(65536).endswith(b"\r\n\r\n1")
        time.sleep(0.8)  # idle, which only keep-alive limits
        raw.sendall(HEAD + b"content-length: 2\r\n\r\nab")
        assert raw.recv(65536).endswith(b"\r\n\r\n2")


@pytest.mark.parametrize(
    ("begin", "piece"),
    [(b"0\r\nx: ", b"a" * 500), (b"0\r\n", b"a: b\r\n" * 80), (b"5;x=", b"a" * 500)],
    ids=["one trailer", "many trailers", "chunk extension"],
)
def test_what_has_no_end_between_the_chunks_of_a_body_is_cut_off(
    echo: httpx.Client, begin: bytes, piece: bytes
) -> None:
    with _connected(echo, HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n" + begin) as raw:
        assert _trickle(raw, piece, 10) < 8
        received = _read_all(raw)
    assert received == b"" or b" 431 " in received  # the answer is lost if the caller sends more after it


async def _late(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, and answers after the milliseconds in the path, unless the caller disconnects before."""
    while (await receive()).get("more_body"):
        pass
    with suppress(TimeoutError):
        await asyncio.wait_for(receive(), int(scope["path"][1:]) / 1e3)
        DISCONNECTED.set()
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"late"})


DISCONNECTED = threading.Event()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(("version", "wait_ms", "interim"), [(b"1.1", 0, 0), (b"1.1", 800, 1), (b"1.0", 800, 0)])
def test_a_caller_that_only_ends_its_side_gets_its_answer(
    loop: str, version: bytes, wait_ms: int, interim: int
) -> None:  # with at most one interim answer, which HTTP/1.0 does not have
    DISCONNECTED.clear()
    head = b"POST /%d HTTP/%s\r\nhost: x\r\ncontent-length: 2\r\n\r\n" % (wait_ms, version)
    with serving(_late, "off", loop=loop, **uvicorn_options(Settings())) as client:
        with _connected(client, head + b"hi") as raw:
            raw.shutdown(socket.SHUT_WR)
            received = _read_all(raw)
        assert received.count(b"HTTP/1.1 100 Continue\r\n\r\n") == interim
        assert received.count(b"HTTP/1.1 200 ") == 1
        assert received.endswith(b"late")
        assert not DISCONNECTED.is_set()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_closed_connection_is_distinguished_from_one_whose_caller_waits(loop: str) -> None:
    DISCONNECTED.clear()
    with serving(_late, "off", loop=loop, **uvicorn_options(Settings())) as client:
        with _connected(client, b"GET /60000 HTTP/1.1\r\nhost: x\r\n\r\n"):
            time.sleep(0.2)
        assert DISCONNECTED.wait(20)


def test_pipelined_requests_are_answered_to_a_caller_that_ends_its_side(echo: httpx.Client) -> None:
    requests = b"".join(HEAD + b"content-length: %d\r\n\r\n" % n + b"a" * n for n in (5, 3))
    with _connected(echo, requests + b"GET / HT") as raw:
        raw.shutdown(socket.SHUT_WR)
        assert [part[:1] for part in _read_all(raw).split(b"\r\n\r\n")[1:]] == [b"5", b"3"]


def test_a_connection_whose_caller_ends_its_side_within_the_body_is_closed(echo: httpx.Client) -> None:
    with _connected(echo, HEAD + b"content-length: 9\r\n\r\n1234") as raw:
        raw.shutdown(socket.SHUT_WR)
        assert _read_all(raw) == b""


def test_an_answer_that_nobody_reads_is_dropped(echo: httpx.Client) -> None:
    with _connected(echo, b"GET /large/50000000 HTTP/1.1\r\n\r\n") as raw:
        time.sleep(2)
        assert len(_read_all(raw)) < 50_000_000


def test_an_answer_that_is_read_slowly_but_steadily_arrives_completely(echo: httpx.Client) -> None:
    size = 12_000_000
    with _connected(echo, b"GET /large/%d HTTP/1.1\r\nconnection: close\r\n\r\n" % size) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        received = 0
        start = time.monotonic()
        while chunk := raw.recv(1 << 20):
            received += len(chunk)
            time.sleep(min(0.05, max(0.0, 2 - (time.monotonic() - start))))
        assert received > size


def test_an_idle_connection_is_closed_when_its_time_is_up() -> None:
    with _bounded(_echo, keep_alive_s=0.3) as client, _connected(client, b"GET / HTTP/1.1\r\n\r\n") as raw:
        start = time.monotonic()
        assert _read_all(raw).endswith(b"\r\n\r\n0")
        assert 0.2 < time.monotonic() - start < 10


@pytest.mark.parametrize("framing", [b"content-length: 10000", b"transfer-encoding: chunked"])
def test_a_body_that_stops_or_trickles_is_answered_408(pipeline: Pipeline, framing: bytes) -> None:
    settings = Settings(body_timeout_s=1, body_bytes_per_s=1000)
    piece = b"1\r\na\r\n" if b"chunked" in framing else b"a"
    with _bounded(create_app(pipeline, settings), lifespan="on") as client:
        for seconds in (0.2, 5):  # stops; trickles at 20 bytes a second
            with _connected(client, HEAD + framing + b"\r\n\r\n") as raw:
                start = time.monotonic()
                _trickle(raw, piece, seconds)
                head, _, body = _read_all(raw).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 408 ")
                assert json.loads(body)["code"] == "request_timeout"
                assert 0.9 < time.monotonic() - start < 4.5
        assert client.post("/segment", content=PNG).status_code == 200


def test_the_time_of_a_busy_server_does_not_count_against_the_upload(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = pipeline.infer

    def slowly(*arguments: Any) -> Any:
        time.sleep(1.5)
        return infer(*arguments)

    with _bounded(create_app(pipeline, Settings(body_timeout_s=1)), lifespan="on") as client:
        monkeypatch.setattr(pipeline, "infer", slowly)
        assert client.post("/segment", content=PNG).status_code == 200


def test_a_body_longer_than_it_says_or_than_allowed_is_cut_off(pipeline: Pipeline) -> None:
    with _bounded(create_app(pipeline, Settings(max_body_bytes=1024)), lifespan="on") as client:
        with _connected(client, HEAD + b"content-length: 99999999999\r\n\r\n") as raw:
            assert raw.recv(65536).startswith(b"HTTP/1.1 413 ")
        chunk = b"400\r\n" + b"a" * 1024 + b"\r\n"
        with _connected(client, HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk * 3) as raw:
            assert raw.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_each_server_counts_its_own_connections() -> None:
    first, second = (uvicorn_options(Settings(max_connections=n))["http"] for n in (5, 6))
    assert (first.limits.max_connections, second.limits.max_connections) == (5, 6)
    assert first.limiter is not second.limiter
