"""The outermost layer, which every request passes once, and all that is done for every request:

request ─► id, clock ─► body within its time (`uploads.py`) ─► application ─► security headers, id ─► answer
                                  └ at the end: what it held is freed; Access ─► metrics, log, trace (`telemetry.py`)
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
"""Name in small letters, as ASGI has it, and value."""


class RequestMiddleware:
    """Gives every request an id, its own or a new one, and every answer the same; bounds, tells and frees as above.

    The id is in `scope["state"]["request_id"]` from here on. free: frees a list's entries, in a worker.
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
        """Pass the request on, and tell of it when it has ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(scope)
        seen = self._telemetry.begun(request_id)
        upload, answer = Upload(receive, self._limits), _Answer(send, seen, request_id)
        try:
            try:
                await self._app(scope, upload.receive, answer.send)
            finally:
                if held := state.get("held"):
                    await self._free(held)
        except asyncio.CancelledError:
            seen.gone = True
            raise
        finally:
            seen.bytes_in = upload.size_bytes
            seen.gone |= upload.is_gone
            self._telemetry.ended(scope, seen)


class _Answer:
    """One answer on its way out. It gets its id, and those of `RAW_SECURITY_HEADERS` that it does not set itself."""

    __slots__ = ("_request_id", "_seen", "_send")

    def __init__(self, send: Send, seen: RequestRecord, request_id: str) -> None:
        self._send, self._seen, self._request_id = send, seen, request_id

    async def send(self, message: Message) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            present = {name for name, _ in headers}
            own = (*RAW_SECURITY_HEADERS, (_ID_HEADER, self._request_id.encode()))  # which a refusal has already
            message["headers"] = [*headers, *(own if present.isdisjoint(_NAMES) else _without(own, present))]
        self._seen.sent(message)
        await self._send(message)


def _without(pairs: Iterable[RawHeader], names: set[bytes]) -> list[RawHeader]:
    return [pair for pair in pairs if pair[0] not in names]


def _request_id(scope: Scope) -> str:
    given = first_header(scope, _ID_HEADER) or ""
    return given if REQUEST_ID.fullmatch(given) else new_request_id()


def new_request_id() -> str:
    """32 hex digits."""
    return os.urandom(16).hex()
