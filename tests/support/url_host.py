"""A real HTTP server that answers each path with exactly the bytes that a test gives it: also with what no honest server sends."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from support.paths import ROOT

CERTIFICATE = ROOT / "tests/support/tls/images.example.org.pem"
"""Self-signed, for images.example.org, with its key; made by `openssl req -x509 -newkey ec -nodes -days 36500`."""


@dataclass(frozen=True, slots=True)
class Scripted:
    """An answer. pieces: sent one by one; stays_open: the connection is closed by the caller only."""

    pieces: Iterable[bytes]
    stays_open: bool = False


@dataclass
class UrlHost:
    """answers: by path; requests: the heads received; has_closed: set when a caller closed a connection that stays open."""

    port: int
    answers: dict[str, Scripted] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    has_closed: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Of its root, with a `/`."""
        return f"http://127.0.0.1:{self.port}/"


def response(body: bytes, status: str = "200 OK", **headers: str) -> Scripted:
    """An honest response; headers: with `_` for `-`."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Scripted([("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body])


def redirect(location: str, status: str = "302 Found") -> Scripted:
    return response(b"moved", status, Location=location)


@contextmanager
def url_host(answers: Mapping[str, Scripted] | None = None, *, tls: bool = False) -> Iterator[UrlHost]:
    """A server on a free port of 127.0.0.1, until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    host = UrlHost(listener.getsockname()[1], dict(answers or {}))
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
    threading.Thread(target=_accept, args=(listener, host, context), daemon=True).start()
    try:
        yield host
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _accept(listener: socket.socket, host: UrlHost, context: ssl.SSLContext | None) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, host, context), daemon=True).start()


def _serve(connection: socket.socket, host: UrlHost, context: ssl.SSLContext | None) -> None:
    with connection, suppress(OSError):
        stream = context.wrap_socket(connection, server_side=True) if context else connection
        with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                received = stream.recv(65536)
                if not received:
                    return
                head += received
            host.requests.append(head.decode("latin-1"))
            answer = host.answers.get(head.split(b" ")[1].decode("latin-1"), response(b"", "404 Not Found"))
            try:
                for piece in answer.pieces:
                    stream.sendall(piece)
                if answer.stays_open:
                    stream.recv(1)
            finally:
                host.has_closed.set()
