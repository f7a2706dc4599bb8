"""One HTTP/1.1 connection: sends a prepared request and waits for the complete response; bodies of 200 responses are dropped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import httptools

OK = 200


class ConnectionLost(Exception):
    """The server closed the connection before the response, or sent something that is not HTTP."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server, and what to send. requests: complete, head and body, sent in turn; names: of their images."""

    host: str
    port: int
    requests: tuple[bytes, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """status: HTTP status; code: from the problem+json body, "" for a 200 response."""

    status: int
    code: str


class Connection(asyncio.Protocol):
    """Handles one request at a time; httptools calls the `on_` methods."""

    def __init__(self) -> None:
        self.is_open = True
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._body = bytearray()

    async def exchange(self, request: bytes) -> Reply:
        """Send a request and wait for its response.

        Raises:
            ConnectionLost: the connection is closed, or was closed before the response.
        """
        if self._transport is None or not self.is_open:
            raise ConnectionLost
        self._reply = asyncio.get_running_loop().create_future()
        self._body.clear()
        self._transport.write(request)
        return await self._reply

    def close(self) -> None:
        """Close the connection; a pending response is lost."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is compatible but not a subclass

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self.is_open = False
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionLost())

    def on_body(self, body: bytes) -> None:
        """Called by httptools; only bodies of problems are kept."""
        if self._parser.get_status_code() != OK:
            self._body += body

    def on_message_complete(self) -> None:
        """Called by httptools."""
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.close()
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(Reply(status, "" if status == OK else _code(status, bytes(self._body))))


def post(host: str, port: int, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A complete request with one image. headers: added to the default ones, or replacing them."""
    lines = {"host": f"{host}:{port}", "content-type": "application/octet-stream", "content-length": str(len(body))}
    head = f"POST {path} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (lines | dict(headers or {})).items()) + "\r\n"
    return head.encode() + body


def _code(status: int, body: bytes) -> str:
    """The code of a problem+json body; for anything else `http_` and the status."""
    try:
        problem = json.loads(body)
    except ValueError:
        return f"http_{status}"
    code = problem.get("code") if isinstance(problem, dict) else None
    return code if isinstance(code, str) else f"http_{status}"
