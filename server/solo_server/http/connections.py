"""What a connection may cost before it is a request: uvicorn's protocol with bounds on time, headers, number and unread answers.

    connected ── headers within header_timeout_s and max_header_bytes ──> request ── answered ──> idle, for keep_alive_s
        │                                                                    │
        └── late: 408, too long: 431, no HTTP: 400; then closed              └── body: `solo_server.http.uploads`

uvicorn knows none of these but keep_alive_s, and takes one byte as the end of being idle: without bounds, callers that trickle
their headers hold connections for ever. When `max_connections` are open, whoever has waited longest without a complete request
makes room for the next; where every one is in a request, the next is answered 503. Built on uvicorn's `HttpToolsProtocol` and its
callbacks: `tests/http/test_connections.py` tells when another version of uvicorn breaks that. Requests that ask for another
protocol are plain HTTP/1.1 here: `solo_server.http.request_parser`.
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
from solo_server.http.problems import problem_response, refusal
from solo_server.http.request_parser import RequestParser
from solo_server.http.socket_state import is_reset, unsent_bytes
from solo_server.observability.observer import Observer, Unobserved
from solo_server.settings import Settings

REFUSED_AT_ONCE = 64  # connections above the limit that still get an answer; more are closed unread
CALLER_CHECK_S = 0.1  # after a caller ended its side, and from then on: is it still there?
REFUSED_TIMEOUT_S = 2.0  # how long such a connection may take to send its request, and to read the answer
SHARED_SECONDS = 30.0
"""A connection to one of several workers lasts no longer: who stays must come to one that was replaced."""
_CLOSING = {
    431: {"connection": "close"},
    503: {},
}  # with a 503 a body may be on its way: closing now would tear the answer away


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """stall_s: for what is answered already: the rest of its body, and an answer that goes out slower than bytes_per_s.

    lasting_s: a connection that is older, or at random half as old, ends with its next answer (`Connection: close`).
    """

    max_connections: int
    max_header_bytes: int
    header_timeout_s: float
    stall_s: float
    bytes_per_s: float
    lasting_s: float = math.inf


def uvicorn_options(settings: Settings, observer: Observer | None = None) -> dict[str, Any]:
    """What `uvicorn.Config` needs to bound connections as the settings say. observer: hears of refusals before the application."""
    limits = ConnectionLimits(
        max_connections=settings.max_connections,
        max_header_bytes=settings.max_header_bytes,
        header_timeout_s=settings.header_timeout_s,
        stall_s=settings.body_timeout_s,
        bytes_per_s=settings.body_bytes_per_s,
        lasting_s=SHARED_SECONDS if settings.workers > 1 else math.inf,
    )
    return {
        "http": bounded_protocol(limits, observer),
        "timeout_keep_alive": settings.keep_alive_s,
        "ws": "none",
        "server_header": False,
    }


def bounded_protocol(limits: ConnectionLimits, observer: Observer | None = None) -> type[BoundedProtocol]:
    """The protocol class for one server; its connections are counted together."""
    of_this_server = {
        "limits": limits,
        "limiter": ConnectionLimiter(limits.max_connections),
        "observer": observer or Unobserved(),
    }
    return type("BoundedProtocol", (BoundedProtocol,), of_this_server)


class ConnectionLimiter:
    """Who is connected: in a request, waiting to send one (longest first), or let in only to be refused."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_request: set[BoundedProtocol] = set()
        self._waiting: dict[BoundedProtocol, None] = {}
        self._refused: set[BoundedProtocol] = set()

    def enter(self, connection: BoundedProtocol) -> bool:
        """Whether it may stay; one that waits is sent away for it where the house is full."""
        if len(self._in_request) + len(self._waiting) >= self._most:
            if not self._waiting:
                self._refused.add(connection)
                return False
            longest = next(iter(self._waiting))
            self.leave(longest)
            longest.make_room()
        self._waiting[connection] = None
        return True

    def starts(self, connection: BoundedProtocol) -> None:
        """Its headers are complete."""
        if connection in self._waiting:
            del self._waiting[connection]
            self._in_request.add(connection)

    def waits(self, connection: BoundedProtocol) -> None:
        """Its request is answered."""
        if connection in self._in_request:
            self._in_request.remove(connection)
            self._waiting[connection] = None

    def leave(self, connection: BoundedProtocol) -> None:
        """It is closed, or as good as."""
        self._waiting.pop(connection, None)
        self._in_request.discard(connection)
        self._refused.discard(connection)

    @property
    def overrun(self) -> bool:
        """Too many are waiting to be refused."""
        return len(self._refused) > REFUSED_AT_ONCE


class BoundedProtocol(HttpToolsProtocol):
    """One connection within `ConnectionLimits`."""

    limits: ClassVar[ConnectionLimits]
    limiter: ClassVar[ConnectionLimiter]
    observer: ClassVar[Observer]
    parser: RequestParser  # type: ignore[assignment]  # which has all that uvicorn calls

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = RequestParser(self, self._should_upgrade)
        self._served_app = self.app
        self._admitted = True
        self._until = math.inf
        self._begun = False  # the first byte of a request has come, its headers are not complete
        self._receiving = False  # headers are complete, the body is not
        self._header_bytes = 0
        self._framing_bytes = 0  # since the last byte of the body
        self._unsent_bytes: int | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Find a place; the clock for the first request starts."""
        super().connection_made(transport)
        self._until = self.loop.time() + self.limits.lasting_s * random.uniform(0.5, 1)  # noqa: S311  # no secret
        self._admitted = self.limiter.enter(self)
        if self.limiter.overrun:
            transport.abort()
        self._start_header_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing of it stays."""
        self.limiter.leave(self)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bound what may come before a request's headers are complete, and within its body without being of the body."""
        if self._receiving:
            self._framing_bytes += len(data)
        else:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._receiving and self._framing_bytes > self.limits.max_header_bytes:
            self._give_up_body(
                HeadersTooLarge(f"chunk sizes and trailers have more than {self.limits.max_header_bytes} bytes")
            )
        if self._begun or self._header_bytes:  # they are not complete yet
            self._start_header_clock()
        if "headers" in self._timers and self._header_bytes > self.limits.max_header_bytes:
            self._refuse(self._too_large())

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio reads the answer, which uvicorn does not give
        """The caller ended its side. Whether the connection stays open: until complete requests are answered."""
        if not self._answering or self._receiving:
            return False
        self.cycle.keep_alive = False
        self._watch_caller(has_asked=False)
        return True

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._begun = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of the head. Trailers are dropped: as headers they would pass for what a proxy has checked (RFC 9110, 6.5.1)."""
        if not self._receiving:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """From here it is a request: for the application, or to be refused."""
        if self.parser.get_method() == b"CONNECT":
            raise HttpParserError("what follows is not framed")
        if self._comes_again:
            return
        self._stop("headers")
        self._begun, self._framing_bytes = False, 0
        self.limiter.starts(self)
        size_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        size_bytes += self.parser.ignored_bytes
        self._header_bytes = 0
        problem: ServerError | None = None
        if not self._admitted:
            problem = Overloaded("too many connections are open", "connections_full")
        elif size_bytes > self.limits.max_header_bytes:
            problem = self._too_large()
        if problem is not None:
            self._tell(problem)
        self.app = self._served_app if problem is None else refusal(problem, uuid.uuid4().hex, _CLOSING[problem.status])
        super().on_headers_complete()
        self._receiving = True  # not where that raised: a request before this one still gets its answer

    def on_body(self, body: bytes) -> None:
        """Some of it."""
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is complete."""
        if self._comes_again:
            return
        self._receiving = False
        self._stop("rest")
        super().on_message_complete()
        if self.loop.time() >= self._until and not self.cycle.response_started:
            self.cycle.keep_alive = False  # not before the body is there: closing would tear the answer away
        if not self._admitted and not self._answering:
            self.transport.close()

    def on_response_complete(self) -> None:
        """The answer is written: what is left of the body, and the reading of the answer, are bounded too."""
        super().on_response_complete()
        self._watch_unsent()
        if self.transport.is_closing() or self._answering:
            return
        self.limiter.waits(self)
        if self._receiving:
            seconds = self.limits.stall_s if self._admitted else REFUSED_TIMEOUT_S
            self._start("rest", seconds, self.transport.close)
        elif not self._admitted:
            self.transport.close()

    def pause_writing(self) -> None:
        """The caller does not read as fast as we write."""
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        self._unsent_bytes = None

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP. A request before it still gets its own answer, where its body is complete."""
        if not self._answering:
            is_connect = self.parser.get_method() == b"CONNECT"
            detail = "CONNECT is not supported: this is no proxy" if is_connect else "this is no HTTP/1.1 request"
            self._refuse(MalformedRequest(detail))
        elif self._receiving:
            self._give_up_body(MalformedRequest("the body is not framed as its headers say"))
        else:
            self.cycle.keep_alive = False

    def make_room(self) -> None:
        """Close, as another is waiting; who has begun a request is told."""
        if self._begun:
            detail = "too many connections are open; this one was waiting longest for its headers"
            self._refuse(Overloaded(detail, "connections_full"))
        else:
            self.transport.close()

    @property
    def _comes_again(self) -> bool:
        """The head in hand asks for a protocol that is not spoken here: the parser gives it once more, without that."""
        return self.parser.should_upgrade() and not self._should_upgrade()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _headers_late(self) -> None:
        if self._answering:
            self.cycle.keep_alive = False  # the next request trickles behind one that will be answered
        elif self._begun:
            self._refuse(RequestTimeout("the headers came too slowly"))
        else:
            self.transport.close()

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(f"request line and headers have more than {self.limits.max_header_bytes} bytes")

    def _give_up_body(self, problem: ServerError) -> None:
        """The rest of it cannot be read."""
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
        if self._answering and not self._receiving:
            self.cycle.keep_alive = False
            return
        self._tell(problem)
        response = problem_response(problem, uuid.uuid4().hex)
        headers = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[problem.status] + lines + b"\r\n" + bytes(response.body))
        self.transport.close()

    def _tell(self, problem: ServerError) -> None:
        self.observer.refused(problem.code, problem.reason if isinstance(problem, Unavailable) else "connection")

    def _start_header_clock(self) -> None:
        if "headers" not in self._timers:
            seconds = self.limits.header_timeout_s
            self._start("headers", seconds if self._admitted else min(seconds, REFUSED_TIMEOUT_S), self._headers_late)

    def _watch_caller(self, has_asked: bool) -> None:
        if "caller" not in self._timers:
            self._start("caller", CALLER_CHECK_S, lambda: self._check_caller(has_asked))

    def _check_caller(self, has_asked: bool) -> None:
        """Whoever closed the connection looks like one that only ended its side, until something is sent: then a reset comes back.

        An interim answer is what can be sent before the answer; callers must be able to skip it (RFC 9110, 15.2).
        """
        if is_reset(self.transport):
            self.transport.abort()
            return
        cycle = self.cycle
        if not has_asked and not self.pipeline and not cycle.response_started and cycle.scope["http_version"] == "1.1":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            has_asked = True
        self._watch_caller(has_asked)

    def _watch_unsent(self) -> None:
        size_bytes = unsent_bytes(self.transport)
        if size_bytes and "unsent" not in self._timers:
            self._unsent_bytes = size_bytes
            self._start("unsent", self.limits.stall_s, self._check_unsent)

    def _check_unsent(self) -> None:
        before, now = self._unsent_bytes, unsent_bytes(self.transport)
        if now and before is not None and before - now < self.limits.bytes_per_s * self.limits.stall_s:
            self.transport.abort()  # close() would wait for ever for the caller to read
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
