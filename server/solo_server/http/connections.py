"""Limits on connections: uvicorn's protocol with bounds on time, header size, number of connections and unread answers.

    connected ── headers within header_timeout_s and max_header_bytes ──> request ── answered ──> idle, for keep_alive_s
        │                                                                    │
        └── late: 408, too long: 431, no HTTP: 400; then closed              └── body: `solo_server.http.uploads`

Of these uvicorn has keep_alive_s only, and one received byte ends it: callers that trickle their headers would hold connections
for ever. `solo_server.http.connection_limiter` decides which stay when `max_connections` are open. The protocol is built on
uvicorn's `HttpToolsProtocol` and its callbacks; `tests/http/test_connections.py` fails if a version of uvicorn changes them.
A WebSocket handshake for `/stream` hands the connection over to a `StreamConnection`. Requests for another protocol (`Upgrade`)
are plain HTTP/1.1 here: `solo_server.http.request_parser`.
"""

from __future__ import annotations

import asyncio
import math
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from solo_server.errors import HeadersTooLarge, MalformedRequest, Overloaded, RequestTimeout, ServerError, Unavailable
from solo_server.http.connection_limiter import ConnectionLimiter
from solo_server.http.problems import problem_response, refusal
from solo_server.http.request_parser import RequestParser
from solo_server.http.socket_state import is_reset, unsent_bytes
from solo_server.http.stream_connection import StreamConnection, StreamLimits, stream_options
from solo_server.http.stream_handshake import opens_stream
from solo_server.observability.observer import Observer, Unobserved
from solo_server.settings import Settings

CALLER_CHECK_S = 0.1
"""How often a caller that ended its side is checked: is it still connected?"""
REFUSED_TIMEOUT_S = 2.0
"""How long a connection above the limit may take to send its request, and to read the refusal."""
SHARED_SECONDS = 30.0
"""Longest life of a connection to one of several workers: callers that stay must reach workers that were replaced."""
_REFUSAL_HEADERS = {
    431: {"connection": "close"},
    503: {},  # a body may be on its way: closing now would cut the answer off
}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of each connection.

    stall_s: how long an answered request may take to send the rest of its body, and an answer may go out slower than bytes_per_s.
    lasting_s: a connection closes with its next answer (`Connection: close`) at an age between half of this and this, at random.
    """

    max_connections: int
    max_header_bytes: int
    header_timeout_s: float
    stall_s: float
    bytes_per_s: float
    lasting_s: float = math.inf


def uvicorn_options(settings: Settings, observer: Observer | None = None) -> dict[str, Any]:
    """Options for `uvicorn.Config` that limit connections as the settings say. observer: counts refusals made here."""
    limits = ConnectionLimits(
        max_connections=settings.max_connections,
        max_header_bytes=settings.max_header_bytes,
        header_timeout_s=settings.header_timeout_s,
        stall_s=settings.body_timeout_s,
        bytes_per_s=settings.body_bytes_per_s,
        lasting_s=SHARED_SECONDS if settings.workers > 1 else math.inf,
    )
    idle_s = max(settings.keep_alive_s, settings.request_timeout_ms / 1e3)
    stream_limits = StreamLimits(idle_s, settings.body_timeout_s, settings.body_bytes_per_s)
    return {
        "http": bounded_protocol(limits, observer),
        "timeout_keep_alive": settings.keep_alive_s,
        "server_header": False,
        **stream_options(stream_limits, settings.max_body_bytes),
    }


def bounded_protocol(limits: ConnectionLimits, observer: Observer | None = None) -> type[BoundedProtocol]:
    """The protocol class of one server; its connections are counted together."""
    attributes = {
        "limits": limits,
        "limiter": ConnectionLimiter(limits.max_connections),
        "observer": observer or Unobserved(),
    }
    return type("BoundedProtocol", (BoundedProtocol,), attributes)


class BoundedProtocol(HttpToolsProtocol):
    """One connection within `ConnectionLimits`."""

    limits: ClassVar[ConnectionLimits]
    limiter: ClassVar[ConnectionLimiter]
    observer: ClassVar[Observer]
    parser: RequestParser  # type: ignore[assignment]  # it has all methods that uvicorn calls

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = RequestParser(self, self._should_upgrade)
        self._served_app = self.app
        self._admitted = True
        self._expires_at = math.inf
        self._in_headers = False  # a request has begun, its headers are not complete
        self._in_body = False  # the headers are complete, the body is not
        self._opens_stream = False
        self._header_bytes = 0
        self._framing_bytes = 0  # since the last byte of the body
        self._unsent_bytes: int | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Count the connection, and start the clock for its first request."""
        super().connection_made(transport)
        self._expires_at = self.loop.time() + self.limits.lasting_s * random.uniform(0.5, 1)  # noqa: S311  # no secret
        self._admitted = self.limiter.add(self)
        if self.limiter.is_refusing_too_many:
            transport.abort()
        self._start_header_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting the connection, and cancel its timers."""
        self.limiter.remove(self)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Limit the bytes of a request's headers, and the bytes between the chunks of its body."""
        if self._in_body:
            self._framing_bytes += len(data)
        else:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_body and self._framing_bytes > self.limits.max_header_bytes:
            self._abort_body(
                HeadersTooLarge(f"chunk sizes and trailers have more than {self.limits.max_header_bytes} bytes")
            )
        if self._in_headers or self._header_bytes:  # the headers are not complete yet
            self._start_header_clock()
        if "headers" in self._timers and self._header_bytes > self.limits.max_header_bytes:
            self._refuse(self._too_large())

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio uses the result, which uvicorn does not return
        """The caller ended its side. Returns whether the connection stays open: until all complete requests are answered."""
        if not self._answering or self._in_body:
            return False
        self.cycle.keep_alive = False
        self._watch_caller(has_probed=False)
        return True

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_headers, self._opens_stream = True, False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. Trailers are dropped: as headers they would bypass the checks of a proxy (RFC 9110, 6.5.1)."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application, or refuse it."""
        if self.parser.get_method() == b"CONNECT":
            raise HttpParserError("bytes after CONNECT have no framing")
        size_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        size_bytes += self.parser.ignored_bytes
        self._opens_stream = self._admitted and size_bytes <= self.limits.max_header_bytes and self._is_handshake()
        if self._is_parsed_again:
            return
        self._stop("headers")
        self._in_headers, self._framing_bytes = False, 0
        self.limiter.request_started(self)
        self._header_bytes = 0
        problem: ServerError | None = None
        if not self._admitted:
            problem = Overloaded("too many connections are open", "connections_full")
        elif size_bytes > self.limits.max_header_bytes:
            problem = self._too_large()
        if problem is not None:
            self._observe_refusal(problem)
        self.app = (
            self._served_app
            if problem is None
            else refusal(problem, uuid.uuid4().hex, _REFUSAL_HEADERS[problem.status])
        )
        super().on_headers_complete()
        self._in_body = not self._opens_stream  # only if that did not raise: an earlier request still gets its answer

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is complete."""
        if self._is_parsed_again or self._opens_stream:
            return
        self._in_body = False
        self._stop("rest")
        super().on_message_complete()
        if self.loop.time() >= self._expires_at and not self.cycle.response_started:
            self.cycle.keep_alive = False  # not before the body is complete: closing would cut the answer off
        if not self._admitted and not self._answering:
            self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over. It still counts here, until `StreamConnection` reports that it is lost."""
        for name in list(self._timers):
            self._stop(name)
        super().handle_websocket_upgrade()
        stream = self.transport.get_protocol()
        if isinstance(stream, StreamConnection):
            stream.http = self
            if not stream.handshake_initiated:  # the package websockets has stricter limits for headers
                self._refuse(MalformedRequest("the WebSocket handshake has too many, too long or malformed headers"))

    def on_response_complete(self) -> None:
        """The answer is written. Limit the time for the rest of the body, and for reading the answer."""
        super().on_response_complete()
        self._watch_unsent()
        if self.transport.is_closing() or self._answering:
            return
        self.limiter.request_ended(self)
        if self._in_body:
            seconds = self.limits.stall_s if self._admitted else REFUSED_TIMEOUT_S
            self._start("rest", seconds, self.transport.close)
        elif not self._admitted:
            self.transport.close()

    def pause_writing(self) -> None:
        """The caller reads more slowly than the server writes."""
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        """The caller has read enough."""
        super().resume_writing()
        self._unsent_bytes = None

    def send_400_response(self, msg: str) -> None:
        """The received bytes are no HTTP request. An earlier request whose body is complete still gets its own answer."""
        if not self._answering:
            is_connect = self.parser.get_method() == b"CONNECT"
            detail = (
                "CONNECT is not supported: this server is not a proxy" if is_connect else "not a valid HTTP/1.1 request"
            )
            self._refuse(MalformedRequest(detail))
        elif self._in_body:
            self._abort_body(MalformedRequest("the framing of the body does not match the headers"))
        else:
            self.cycle.keep_alive = False

    def evict(self) -> None:
        """Close: a new connection needs the slot. Where a request has begun, it is answered 503."""
        if self._in_headers:
            detail = "too many connections are open; this one waited longest for its headers"
            self._refuse(Overloaded(detail, "connections_full"))
        else:
            self.transport.close()

    def _should_upgrade(self) -> bool:
        """Whether the current head opens a stream; `RequestParser` and uvicorn ask."""
        return self._opens_stream

    def _is_handshake(self) -> bool:
        """Whether the current head may hand the connection over: not before earlier requests are answered."""
        return (
            super()._should_upgrade()
            and not self._answering
            and opens_stream(self.parser.get_method(), self.parser.get_http_version(), self.url, self.headers)
        )

    @property
    def _is_parsed_again(self) -> bool:
        """Whether the current headers ask for a protocol that the server does not speak: `RequestParser` parses them again."""
        return self.parser.should_upgrade() and not self._should_upgrade()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _headers_late(self) -> None:
        if self._answering:
            self.cycle.keep_alive = False  # an earlier request is still to be answered
        elif self._in_headers:
            self._refuse(RequestTimeout("the headers arrived too slowly"))
        else:
            self.transport.close()

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(f"request line and headers have more than {self.limits.max_header_bytes} bytes")

    def _abort_body(self, problem: ServerError) -> None:
        """Stop reading the body; refuse the request, unless its answer has begun."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        if self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse(problem)

    def _refuse(self, problem: ServerError) -> None:
        """Answer without the application, and close."""
        self._stop("headers")
        if self.transport.is_closing():
            return
        if self._answering and not self._in_body:
            self.cycle.keep_alive = False
            return
        self._observe_refusal(problem)
        response = problem_response(problem, uuid.uuid4().hex)
        headers = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[problem.status] + lines + b"\r\n" + bytes(response.body))
        self.transport.close()

    def _observe_refusal(self, problem: ServerError) -> None:
        self.observer.refused(problem.code, problem.reason if isinstance(problem, Unavailable) else "connection")

    def _start_header_clock(self) -> None:
        if "headers" not in self._timers:
            seconds = self.limits.header_timeout_s
            self._start("headers", seconds if self._admitted else min(seconds, REFUSED_TIMEOUT_S), self._headers_late)

    def _watch_caller(self, has_probed: bool) -> None:
        if "caller" not in self._timers:
            self._start("caller", CALLER_CHECK_S, lambda: self._check_caller(has_probed))

    def _check_caller(self, has_probed: bool) -> None:
        """Abort, if the caller has closed the connection and not only its own side.

        Both look alike until something is sent: a closed connection then answers with a reset. An interim answer can be sent before
        the answer; callers must be able to skip it (RFC 9110, 15.2).
        """
        if is_reset(self.transport):
            self.transport.abort()
            return
        cycle = self.cycle
        if not has_probed and not self.pipeline and not cycle.response_started and cycle.scope["http_version"] == "1.1":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            has_probed = True
        self._watch_caller(has_probed)

    def _watch_unsent(self) -> None:
        size_bytes = unsent_bytes(self.transport)
        if size_bytes and "unsent" not in self._timers:
            self._unsent_bytes = size_bytes
            self._start("unsent", self.limits.stall_s, self._check_unsent)

    def _check_unsent(self) -> None:
        before, now = self._unsent_bytes, unsent_bytes(self.transport)
        if now and before is not None and before - now < self.limits.bytes_per_s * self.limits.stall_s:
            self.transport.abort()  # close() would wait for ever until the caller reads
        else:
            self._watch_unsent()

    def _start(self, name: str, seconds: float, then: Callable[[], None]) -> None:
        def fire() -> None:
            self._timers.pop(name, None)
            then()

        self._timers[name] = self.loop.call_later(seconds, fire)

    def _stop(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()
