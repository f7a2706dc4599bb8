"""One HTTP/1.1 connection that sends a ready-made request and waits for the whole answer; bodies of good answers are dropped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import httptools

OK = 200


class ConnectionLost(Exception):
    """The server closed the connection before it had answered, or sent something that is not HTTP."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. requests: complete ones, head and body, taken in turn; names: of their images."""

    host: str
    port: int
    requests: tuple[bytes, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """status: of HTTP; code: of the problem+json body, "" for a good answer."""

    status: int
    code: str


class Connection(asyncio.Protocol):
    """Takes one request at a time; httptools calls the `on_` methods."""

    def __init__(self) -> None:
        self.is_open = True
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._body = bytearray()

    async def exchange(self, request: bytes) -> Reply:
        """Send a request and wait for its answer.

        Raises:
            ConnectionLost: the server went away, before or meanwhile.
        """
        if self._transport is None or not self.is_open:
            raise ConnectionLost
        self._reply = asyncio.get_running_loop().create_future()
        self._body.clear()
        self._transport.write(request)
        return await self._reply

    def close(self) -> None:
        """Give the connection up; an answer that is under way is lost."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without being its subclass

    def data_received(self, data: bytes) -> None:
        """From asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio."""
        self.is_open = False
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionLost())

    def on_body(self, body: bytes) -> None:
        """From httptools; only problems are kept."""
        if self._parser.get_status_code() != OK:
            self._body += body

    def on_message_complete(self) -> None:
        """From httptools."""
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.close()
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(Reply(status, "" if status == OK else _code(status, bytes(self._body))))


def post(host: str, port: int, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A complete request that carries one image. headers: beside those that every request has, or instead of them."""
    lines = {"host": f"{host}:{port}", "content-type": "application/octet-stream", "content-length": str(len(body))}
    head = f"POST {path} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (lines | dict(headers or {})).items()) + "\r\n"
    return head.encode() + body


def _code(status: int, body: bytes) -> str:
    """The stable code of problem+json; of anything else the status."""
    try:
        problem = json.loads(body)
    except ValueError:
        return f"http_{status}"
    code = problem.get("code") if isinstance(problem, dict) else None
    return code if isinstance(code, str) else f"http_{status}"
