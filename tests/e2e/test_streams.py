"""`WS /stream` of `solo serve` in processes of its own: signals, killed clients, several workers."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from solo_server.bench.load.server_process import SOLO_SERVE, Program, ServerProcess
from support.bundles import quick_bundle
from support.images import encoded, smooth_image
from support.small_app import samples, value
from support.streams import BINARY, HANDSHAKE, problem_of, raw_frame, raw_stream, streaming
from websockets.exceptions import ConnectionClosedError

JPEG = encoded(smooth_image(60, 80), "JPEG")
CLIENT = """
import struct, sys
from websockets.sync.client import connect
image = open(sys.argv[2], "rb").read()
with connect(sys.argv[1], subprotocols=["solo.v1"], compression=None) as stream:
    stream.recv()
    print("open", flush=True)
    number = 0
    while True:
        stream.send(struct.pack(">I", number) + image)
        stream.recv()
        number += 1
"""


@contextmanager
def _server(*arguments: str, **settings: str) -> Iterator[tuple[ServerProcess, httpx.Client]]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SOLO_")}
    program = Program(SOLO_SERVE.name, SOLO_SERVE.command, SOLO_SERVE.ready_path, {**kept, **settings})
    with ServerProcess([str(quick_bundle()), "--threads", "1", *arguments], program) as server:
        server.wait_ready()
        with httpx.Client(base_url=f"http://127.0.0.1:{server.address.port}", timeout=60) as client:
            yield server, client


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _open_streams(client: httpx.Client) -> float | None:
    return value(samples(client.get("/metrics").text), "solo_streams_open")


def test_sigterm_ends_streams_and_the_server_with_status_0() -> None:
    with _server() as (server, client), streaming(client) as stream:
        stream.send(1, JPEG)
        assert stream.receive_frame() == ("result", 1)
        server.send(signal.SIGTERM)
        end = stream.receive()
        assert (end["type"], end["problem"]["reason"]) == ("end", "draining")
        assert stream.close_code() == 1001
        assert server.exit_status(30) == 0


def test_sigterm_waits_for_no_client_that_neither_reads_nor_closes() -> None:
    with _server(SOLO_DRAIN_SECONDS="1") as (server, client), ExitStack() as stack:
        idle, in_message, deaf = (stack.enter_context(raw_stream(client)) for _ in range(3))
        in_message.sendall(raw_frame(BINARY, bytes(5000), is_last=False)[:3000])
        deaf.settimeout(0.5)
        with pytest.raises(OSError):  # noqa: PT012 - until neither side takes more
            while True:
                deaf.sendall(raw_frame(BINARY, b"\0\0\0\1" + JPEG, mask=bytes(4)))
        server.send(signal.SIGTERM)
        assert server.exit_status(20) == 0
        assert b'"draining"' in idle.recv(1 << 16)


def test_a_killed_client_leaves_no_file_and_no_place(tmp_path: Path) -> None:
    image = tmp_path / "frame.jpg"
    image.write_bytes(encoded(smooth_image(300, 400), "JPEG"))
    with _server(SOLO_MAX_STREAMS="3") as (server, client):
        files = _open_files(server)
        url = f"ws://127.0.0.1:{server.address.port}/stream"
        for _ in range(3):
            clients = [
                subprocess.Popen([sys.executable, "-c", CLIENT, url, str(image)], stdout=subprocess.PIPE)
                for _ in range(3)
            ]
            for each in clients:
                assert each.stdout is not None
                assert each.stdout.readline() == b"open\n"
            assert problem_of(client) == (503, "overloaded")
            for each in clients:
                each.kill()
                each.communicate()
            _until(lambda: _open_streams(client) == 0)
        _until(lambda: _open_files(server) <= files + 1)  # the test's own connection
        assert client.post("/segment", content=JPEG).status_code == 200


def test_tabs_that_close_in_the_middle_of_a_frame_leave_nothing() -> None:
    with _server(SOLO_MAX_STREAMS="60") as (server, client):
        client.get("/healthz")
        files = _open_files(server)
        for _ in range(3):
            with ExitStack() as stack:
                for number in range(50):
                    raw = stack.enter_context(raw_stream(client))
                    raw.sendall(raw_frame(BINARY, struct.pack(">I", number) + JPEG)[: -1 - number])
                assert _open_streams(client) == 50
        _until(lambda: _open_streams(client) == 0)
        _until(lambda: _open_files(server) <= files)
        with streaming(client) as stream:
            stream.send(1, JPEG)
            assert stream.receive_frame() == ("result", 1)


def test_fifty_streams_are_refused_beyond_the_maximum_and_requests_are_answered() -> None:
    with _server() as (_, client), ExitStack() as stack:
        streams = [stack.enter_context(streaming(client)) for _ in range(16)]
        for number, stream in enumerate(streams):
            stream.send(number, JPEG)
        assert [problem_of(client) for _ in range(50)] == [(503, "overloaded")] * 50
        assert client.post("/segment", content=JPEG).status_code == 200
        assert [stream.receive_frame() for stream in streams] == [("result", number) for number in range(16)]


def test_a_client_of_a_server_that_is_killed_sees_it_at_once() -> None:
    with _server() as (server, client), streaming(client) as stream:
        server.send(signal.SIGKILL)
        with pytest.raises(ConnectionClosedError):
            stream.receive()


def test_several_workers_serve_streams_and_count_them_together() -> None:
    with _server("--workers", "2") as (server, client):
        with ExitStack() as stack:
            streams = [stack.enter_context(streaming(client)) for _ in range(4)]
            for number, stream in enumerate(streams):
                stream.send(number, JPEG)
                assert stream.receive_frame() == ("result", number)
            _until(lambda: _open_streams(client) == 4)
        _until(lambda: _open_streams(client) == 0)
        with streaming(client) as stream:
            server.send(signal.SIGTERM)
            assert stream.receive()["type"] == "end"
            assert stream.close_code() == 1001
            assert server.exit_status(30) == 0


def _open_files(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def test_a_handshake_in_pieces_is_answered_as_in_one() -> None:
    with _server() as (server, _), socket.create_connection(("127.0.0.1", server.address.port), timeout=30) as raw:
        for piece in (HANDSHAKE[:10], HANDSHAKE[10:80], HANDSHAKE[80:], b"\r", b"\n"):
            raw.sendall(piece)
            time.sleep(0.05)
        assert raw.recv(4096).startswith(b"HTTP/1.1 101 ")
