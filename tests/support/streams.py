"""A client of `WS /stream` for tests, made of the package websockets, and raw frames for what no client sends."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

HANDSHAKE = (
    b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
TEXT, BINARY, CONTINUATION, CLOSE, PING = 1, 2, 0, 8, 9


class Stream:
    """An open stream. ready: its first message."""

    def __init__(self, socket: ClientConnection, seconds: float = 30.0) -> None:
        self.socket, self._seconds = socket, seconds
        self.ready = self.receive()

    def send(self, number: int, image: bytes) -> None:
        self.socket.send(struct.pack(">I", number) + image)

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(self._seconds))
        return message

    def receive_frame(self) -> tuple[str, int]:
        """Type and frame of the next message."""
        message = self.receive()
        return message["type"], message["frame"]

    def close_code(self) -> int | None:
        """The code with which the server closes, once it has."""
        with suppress(ConnectionClosedError):
            for _ in self.socket:
                pass
        return self.socket.close_code


@contextmanager
def streaming(http: httpx.Client, query: str = "", **options: Any) -> Iterator[Stream]:
    """A stream to the server of an HTTP client. options: of `websockets.sync.client.connect`."""
    options = {"subprotocols": ["solo.v1"], "compression": None, "max_size": None, "close_timeout": 5, **options}
    with connect(f"ws://127.0.0.1:{http.base_url.port}/stream{query}", **options) as connection:
        yield Stream(connection)


@contextmanager
def raw_stream(http: httpx.Client, headers: bytes = b"") -> Iterator[socket.socket]:
    """A socket after a handshake whose answer is read up to its empty line."""
    with socket.create_connection(("127.0.0.1", http.base_url.port or 0), timeout=30) as raw:
        raw.sendall(HANDSHAKE + headers + b"\r\n")
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += raw.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        yield raw


def raw_frame(opcode: int, payload: bytes, *, is_last: bool = True, mask: bytes | None = None) -> bytes:
    """One frame of the WebSocket protocol (RFC 6455, 5.2), masked as a client's."""
    mask = os.urandom(4) if mask is None else mask
    head, size = bytes([opcode | (0x80 if is_last else 0)]), len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = b"\xfe" + struct.pack(">H", size)
    else:
        length = b"\xff" + struct.pack(">Q", size)
    masked = payload if mask == bytes(4) else bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return head + length + mask + masked


def read_raw(raw: socket.socket) -> tuple[list[Any], int | None]:
    """All messages until the server closes, and its close code. Pongs are left out."""
    received = bytearray()
    try:
        while chunk := raw.recv(1 << 16):
            received += chunk
    except ConnectionResetError:
        pass
    messages, code = [], None
    while len(received) >= 2:
        opcode, size, at = received[0] & 15, received[1], 2
        if size == 126:
            size, at = struct.unpack_from(">H", received, 2)[0], 4
        elif size == 127:
            size, at = struct.unpack_from(">Q", received, 2)[0], 10
        payload = bytes(received[at : at + size])
        del received[: at + size]
        if opcode == TEXT:
            messages.append(json.loads(payload))
        elif opcode == CLOSE:
            code = struct.unpack_from(">H", payload)[0]
    return messages, code


def problem_of(http: httpx.Client, headers: Mapping[str, str] | None = None, query: str = "") -> tuple[int, str]:
    """Status and code of the answer to a handshake that is refused."""
    sent = dict(line.split(": ", 1) for line in HANDSHAKE.decode().split("\r\n")[1:] if line)
    sent |= headers or {}
    body = b"x" * int(sent.get("Content-Length", "0"))
    answer = http.request("GET", f"/stream{query}", headers=sent, content=body or None)
    return answer.status_code, answer.json()["code"]
