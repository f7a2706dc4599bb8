"""The telemetry of every request: one access line, its metrics, its trace.

request ─► RequestMiddleware ─► application ─► service ─► RequestTelemetry (an Observer; a context variable knows the request)
            └ at the end: Access ─► metrics, log, trace
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter, time_ns

import orjson
from starlette.datastructures import Headers
from starlette.types import Message, Scope

from solo_server.observability.logs import ACCESS, REQUEST_ID, Access, access_record
from solo_server.observability.metrics import Metrics
from solo_server.observability.observer import NO_STAGES
from solo_server.observability.traces import ImageTrace, Stage, Traces

PROBES = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
"""Called every few seconds: a success gets a log line at level debug only, and no trace."""
PROBLEM_TYPES = ("application/problem+json", "application/json")
"""Media types of error responses; the second below `/v2`, and of `/readyz`, which has no code."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(slots=True)
class RequestRecord:
    """What is known of one request while it runs. gone: the client disconnected; traced: its images, if there are traces."""

    begun: float = field(default_factory=perf_counter)
    status: int | None = None
    content_type: str = ""
    code: str = "ok"
    bytes_in: int = 0
    bytes_out: int = 0
    instances: int = 0
    gone: bool = False
    images: int = 0
    traced: list[ImageTrace] = field(default_factory=list)
    is_stream: bool = False

    def sent(self, message: Message) -> None:
        """A part of the response is sent."""
        kind = message["type"].removeprefix("websocket.")  # of a stream that is refused
        if kind == "http.response.start":
            self.status = status = int(message["status"])
            if status >= 400:
                self.content_type = Headers(raw=message["headers"]).get("content-type", "")
        elif kind == "http.response.body":
            body = message.get("body", b"")
            if self.status is not None and self.status >= 400 and self.bytes_out == 0:
                self.code = _code(self.status, self.content_type, body)
            self.bytes_out += len(body)


CURRENT_REQUEST: ContextVar[RequestRecord | None] = ContextVar("current_request", default=None)


class RequestTelemetry:
    """Passes what the service reports to the metrics, and to the record of the current request."""

    def __init__(self, metrics: Metrics, traces: Traces | None = None) -> None:
        self.metrics, self.traces = metrics, traces
        self.refused, self.waiting, self.batched = metrics.refused, metrics.waiting, metrics.batched

    def begun(self, request_id: str) -> RequestRecord:
        """The head of a request has arrived; everything that its task logs has its id."""
        record = RequestRecord()
        CURRENT_REQUEST.set(record)  # each request runs in its own task, hence context
        REQUEST_ID.set(request_id)
        self.metrics.begun()
        return record

    def ended(self, scope: Scope, record: RequestRecord) -> None:
        """The request was answered, or its client disconnected."""
        access = _access(scope, record)
        if record.is_stream:
            self.metrics.stream_ended(access)
        else:
            self.metrics.ended(access)
        is_probe = access.route in PROBES
        if self.traces is not None and not is_probe:
            carrier = {k: v for k, v in Headers(scope=scope).items() if k in ("traceparent", "tracestate")}
            self.traces.record(access, time_ns() - int(access.ms * 1e6), record.traced, carrier)
        level = logging.DEBUG if is_probe and access.status < 400 else logging.INFO
        if ACCESS.isEnabledFor(level):
            ACCESS.handle(access_record(level, access))

    def stream_opened(self, record: RequestRecord) -> None:
        """The handshake of a stream is accepted: it is no request any more."""
        record.status, record.is_stream = 101, True
        self.metrics.stream_opened()

    def answered(
        self, model: str, outcome: str, total_ms: float, instances: int = 0, stages_ms: Mapping[str, float] = NO_STAGES
    ) -> None:
        """See `Observer`."""
        self.metrics.answered(model, outcome, total_ms, instances, stages_ms)
        record = CURRENT_REQUEST.get()
        if record is None:
            return
        record.images += 1
        record.instances += instances
        if self.traces is not None:
            stages = [Stage(name, ms) for name, ms in stages_ms.items()]
            record.traced.append(ImageTrace(time_ns() - int(total_ms * 1e6), model, outcome, stages))


@dataclass(slots=True)
class ServedFrame:
    """A frame that is computed. request_id: the stream's and the number of the frame in it; code: `ok`, or of its problem."""

    request_id: str
    code: str = "ok"


class FrameTelemetry:
    """Telemetry of the frames of one stream: metrics, traces, log lines at level debug; sums in the stream's own record.

    stream: the record of the stream; request_id: its id; route: its path's template.
    """

    def __init__(self, telemetry: RequestTelemetry, stream: RequestRecord, request_id: str, route: str) -> None:
        self._telemetry, self._stream, self._request_id, self._route = telemetry, stream, request_id, route
        self._served = 0

    def frame(self, outcome: str) -> None:
        """The end of one frame. outcome: `ok`, `dropped`, `gone`, or the problem's code."""
        self._telemetry.metrics.frame(outcome)

    @contextmanager
    def serving(self, size_bytes: int) -> Iterator[ServedFrame]:
        """Everything that is computed and logged in this context is this frame's. Cancelled: the frame is `gone`."""
        self._served += 1
        served, record = ServedFrame(f"{self._request_id[:50]}-{self._served}"), RequestRecord(bytes_in=size_bytes)
        tokens = CURRENT_REQUEST.set(record), REQUEST_ID.set(served.request_id)
        try:
            yield served
        except BaseException:  # cancelled, or the client is gone
            served.code = "gone"
            raise
        finally:
            self._end(served, record)
            CURRENT_REQUEST.reset(tokens[0])
            REQUEST_ID.reset(tokens[1])

    def _end(self, served: ServedFrame, record: RequestRecord) -> None:
        self.frame(served.code)
        self._stream.images += record.images
        self._stream.instances += record.instances
        ms = round((perf_counter() - record.begun) * 1e3, 3)
        counts = record.bytes_in, 0, record.images, record.instances
        access = Access("FRAME", self._route, 499 if served.code == "gone" else 200, served.code, ms, *counts)
        if self._telemetry.traces is not None:
            self._telemetry.traces.record(access, time_ns() - int(ms * 1e6), record.traced, {})
        if ACCESS.isEnabledFor(logging.DEBUG):
            ACCESS.handle(access_record(logging.DEBUG, access))


def _code(status: int, content_type: str, body: bytes) -> str:
    """The code in the response itself, whichever layer has refused the request."""
    problem = orjson.loads(body) if content_type in PROBLEM_TYPES else {}
    return str(problem.get("code", f"http_{status}"))


def _access(scope: Scope, record: RequestRecord) -> Access:
    status, code, method = record.status, record.code, scope.get("method", "GET")
    if status is None:  # no response yet: the client disconnected, or a failure that only the outermost layer answers
        status, code = (499, "gone") if record.gone else (500, "internal")
    elif status == 499:
        code = "gone"
    return Access(
        method=method if method in METHODS else "other",
        route=_route(scope),
        status=status,
        code=code,
        ms=round((perf_counter() - record.begun) * 1e3, 3),
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        images=record.images,
        instances=record.instances,
    )


def _route(scope: Scope) -> str:
    """The path's template. If a middleware answered before routing: the path itself, if the application has such a route."""
    route = scope.get("route")
    if route is not None:
        return str(route.path)
    known = (getattr(route, "path", "") for route in scope["app"].routes)
    return scope["path"] if scope["path"] in known else "unmatched"
