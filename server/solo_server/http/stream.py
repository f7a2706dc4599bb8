"""The route `WS /stream`: checks the handshake, then a `StreamSession` serves the stream.

    key (api_keys.py) ─► origin, subprotocol ─► parameters ─► model ─► fewer than max_streams ─► accept ─► StreamSession

Whatever is wrong is answered as for a request: over HTTP, with a status and a problem, before the connection becomes a WebSocket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from solo_server.errors import InvalidQuery, Overloaded
from solo_server.http.stream_connection import END_CODE
from solo_server.http.stream_handshake import STREAM_PATH, check_origin, check_subprotocol, upgrade_required
from solo_server.http.stream_session import StreamRequest, StreamSession
from solo_server.http.wire import Parameters, SegmentQuery, gather, read_query, read_timeout, unknown_parameter
from solo_server.observability.telemetry import CURRENT_REQUEST, FrameTelemetry, RequestRecord, RequestTelemetry
from solo_server.service.model_control import find_model
from solo_server.service.service import Service
from solo_server.settings import Settings

_OWN_PARAMETERS = ("model", "version", "timeout_ms")
_PARAMETERS = sorted({*SegmentQuery.model_fields, *_OWN_PARAMETERS})


def add_stream(app: FastAPI, service: Service, settings: Settings, telemetry: RequestTelemetry) -> None:
    """`WS /stream`, and 426 for any other `GET /stream`. OpenAPI cannot describe it: docs/stream.md does."""
    app.router.routes.append(WebSocketRoute(STREAM_PATH, StreamEndpoint(service, settings, telemetry)))

    @app.get(STREAM_PATH, include_in_schema=False)
    async def no_handshake(_: Request) -> Response:
        raise upgrade_required()


class StreamEndpoint:
    """Accepts up to `max_streams` streams at a time. An ASGI application."""

    def __init__(self, service: Service, settings: Settings, telemetry: RequestTelemetry) -> None:
        self._service, self._settings, self._telemetry = service, settings, telemetry
        self.open_streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one stream, or raise why it is refused."""
        websocket = WebSocket(scope, receive, send)
        check_origin(scope, self._settings.cors_origins)
        subprotocol = check_subprotocol(scope["subprotocols"])
        request = _read_request(websocket, self._settings)
        model = find_model(self._service, request.model, request.version)
        request.query.to_query(model.pipeline.bundle.spec)  # unknown classes are refused now
        if (reason := self._service.unready) is not None:
            raise self._refused("not_ready", reason)
        if self.open_streams >= self._settings.max_streams:
            raise self._refused("overloaded", "streams_full")
        self.open_streams += 1
        try:
            await websocket.accept(subprotocol)  # takes `websocket.connect` first
            record = CURRENT_REQUEST.get() or RequestRecord()
            frames = FrameTelemetry(self._telemetry, record, request.request_id, STREAM_PATH)
            code = await StreamSession(self._service, request, frames, receive, send).run(model)
            record.code = scope["state"].get(END_CODE, code)
        finally:
            self.open_streams -= 1

    def _refused(self, code: str, reason: str) -> Exception:
        self._service.observer.refused(code, reason)
        if reason != "streams_full":
            return self._service.not_ready()
        return Overloaded(f"{self.open_streams} streams are open, which is the limit", reason)


def _read_request(websocket: WebSocket, settings: Settings) -> StreamRequest:
    """The parameters and the state of a handshake.

    Raises:
        InvalidQuery: a parameter is unknown, has an invalid value, or asks for a picture.
    """
    parameters = dict(gather(websocket.query_params.multi_items()))
    for name in parameters:
        if name not in _PARAMETERS:
            raise unknown_parameter(f"unknown parameter {name[:60]!r}", name, _PARAMETERS)
    own = {name: _only(name, parameters.pop(name)) for name in _OWN_PARAMETERS if name in parameters}
    query = read_query(parameters)
    if query.format != "rle" or query.overlay:
        raise InvalidQuery("format, overlay: a stream answers JSON with masks as RLE")
    state: Mapping[str, Any] = websocket.scope["state"]
    return StreamRequest(
        query=query,
        model=own.get("model"),
        version=own.get("version"),
        timeout_ms=read_timeout(own.get("timeout_ms"), "timeout_ms") or settings.request_timeout_ms,
        request_id=str(state["request_id"]),
        key_is_known=state.get("key_is_known", lambda: True),
    )


def _only(name: str, values: Parameters | str | float | Sequence[str]) -> str:
    if not isinstance(values, list) or len(values) != 1:
        raise InvalidQuery(f"{name}: is given several times; give it once")
    return str(values[0])
