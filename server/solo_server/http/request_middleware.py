"""The outermost middleware: what is done once for every request.

request ─► id, clock ─► body within its time (`uploads.py`) ─► application ─► security headers, id ─► response
                                  └ at the end: large bodies are freed; Access ─► metrics, log, trace (`telemetry.py`)
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from solo_server.http.bodies import first_header
from solo_server.http.problems import RAW_SECURITY_HEADERS
from solo_server.http.uploads import Upload, UploadLimits
from solo_server.observability.telemetry import RequestRecord, RequestTelemetry

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID_HEADER = b"x-request-id"
_NAMES = frozenset({_ID_HEADER, *(name for name, _ in RAW_SECURITY_HEADERS)})
RawHeader = tuple[bytes, bytes]
"""Name in lower case, as in ASGI, and value."""


class RequestMiddleware:
    """Gives each request and its response an id; limits the upload, records the request, and frees large bodies.

    The id is the caller's, if it sent one, or a new one; it is in `scope["state"]["request_id"]`. free: clears a list in a worker.
    """

    def __init__(
        self,
        app: ASGIApp,
        telemetry: RequestTelemetry,
        limits: UploadLimits,
        free: Callable[[list[object]], Awaitable[None]],
    ) -> None:
        self._app, self._telemetry, self._limits, self._free = app, telemetry, limits, free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and record it when it has ended."""
        if scope["type"] == "websocket":
            await self._serve_stream(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(scope)
        record = self._telemetry.begun(request_id)
        upload, response = Upload(receive, self._limits), _ResponseSender(send, record, request_id)
        try:
            try:
                await self._app(scope, upload.receive, response.send)
            finally:
                if bodies := state.get("to_free"):
                    await self._free(bodies)
        except asyncio.CancelledError:
            record.gone = True
            raise
        finally:
            record.bytes_in = upload.size_bytes
            record.gone |= upload.has_disconnected
            self._telemetry.ended(scope, record)

    async def _serve_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a WebSocket on; until it is accepted it is a request as any other, from then on it counts as a stream."""
        scope.setdefault("state", {})["request_id"] = request_id = _request_id(scope)
        record = self._telemetry.begun(request_id)
        response = _ResponseSender(send, record, request_id)

        async def receive_counted() -> Message:
            message = await receive()
            record.bytes_in += len(message.get("bytes") or b"")
            return message

        async def send_counted(message: Message) -> None:
            if message["type"] == "websocket.accept":
                self._telemetry.stream_opened(record)
                message["headers"] = [*message.get("headers", ()), (_ID_HEADER, request_id.encode())]
            record.bytes_out += len(message.get("text") or "")
            await response.send(message)

        try:
            await self._app(scope, receive_counted, send_counted)
        except asyncio.CancelledError:
            record.gone = True
            raise
        finally:
            self._telemetry.ended(scope, record)


class _ResponseSender:
    """Sends one response with its id, and with those of `RAW_SECURITY_HEADERS` that it does not set itself."""

    __slots__ = ("_record", "_request_id", "_send")

    def __init__(self, send: Send, record: RequestRecord, request_id: str) -> None:
        self._send, self._record, self._request_id = send, record, request_id

    async def send(self, message: Message) -> None:
        """See ASGI."""
        if message["type"].endswith("http.response.start"):
            headers = message.get("headers", ())
            present = {name for name, _ in headers}
            own = (*RAW_SECURITY_HEADERS, (_ID_HEADER, self._request_id.encode()))  # refusals have them already
            message["headers"] = [*headers, *(own if present.isdisjoint(_NAMES) else _without(own, present))]
        self._record.sent(message)
        await self._send(message)


def _without(pairs: Iterable[RawHeader], names: set[bytes]) -> list[RawHeader]:
    return [pair for pair in pairs if pair[0] not in names]


def _request_id(scope: Scope) -> str:
    sent_id = first_header(scope, _ID_HEADER) or ""
    return sent_id if REQUEST_ID.fullmatch(sent_id) else new_request_id()


def new_request_id() -> str:
    """32 hex digits."""
    return os.urandom(16).hex()
