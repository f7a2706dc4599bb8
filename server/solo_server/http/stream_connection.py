"""The connection of one stream: uvicorn's WebSocket protocol over the package websockets, with bounds on what a client can cost.

    BoundedProtocol ── a handshake for /stream ──► StreamConnection ─► messages ─► StreamSession
                                                        └── over a limit: `end`, close; not read by then: aborted

| limit | where |
|---|---|
| size of a message | websockets, from the head of each WebSocket frame, before its bytes are kept |
| messages that are not taken | uvicorn: reading pauses after each message until the session takes it |
| time of a message, idle time, bytes that are not read | `_check`, several times a second |
| tiny WebSocket frames (pings, fragments) | `MAX_SMALL_PER_S`; the event loop parses `SLICE_BYTES` of them at a time |
| pongs that are not read | only the newest one is kept |

uvicorn answers SIGTERM by closing at once; here the session ends the stream, so that frames on the way are answered.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from solo_server.errors import BodyTooLarge, MalformedRequest, RequestTimeout, ServerError
from solo_server.http.socket_state import unsent_bytes
from solo_server.http.stream_messages import FRAME_ID, CloseCode, end_message

CLOSE_S = 2.0
"""How long a client may take to read `end` and to close its side."""
MAX_SMALL_PER_S = 2000
"""Frames of the WebSocket protocol below `SMALL_BYTES`: no camera sends as many, and each costs the event loop about 10 us."""
SMALL_BYTES = 1024
SLICE_BYTES = 8192
PING_S = 20.0
"""Between the pings of a stream, and until their pongs: a client that has disappeared without a word is noticed."""
SHUTTING_DOWN = {"type": "websocket.disconnect", "code": 1012}
"""Tells the session that the server shuts down; the connection is still open."""
END_CODE = "stream_end_code"
"""In the state of the scope: the code of the problem for which the connection ended the stream."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """idle_s: longest time without a message.

    stall_s: time that a message may take in addition to its size divided by bytes_per_s; and how long results may be read more
    slowly than bytes_per_s.
    """

    idle_s: float
    stall_s: float
    bytes_per_s: float

    @property
    def check_s(self) -> float:
        """Time between two checks."""
        return min(1.0, self.stall_s / 4, self.idle_s / 4)


def stream_options(limits: StreamLimits, max_image_bytes: int) -> dict[str, Any]:
    """Options for `uvicorn.Config` that limit streams."""
    return {
        "ws": type("StreamConnection", (StreamConnection,), {"limits": limits}),
        "ws_max_size": max_image_bytes + FRAME_ID.size,
        "ws_per_message_deflate": False,  # images are compressed already, and a compressed message can expand a thousandfold
        "ws_ping_interval": PING_S,
        "ws_ping_timeout": PING_S,
    }


class StreamConnection(WebSocketsSansIOProtocol):
    """One connection within `StreamLimits`. http: the connection before the handshake; it counts this one among all connections."""

    limits: ClassVar[StreamLimits]
    http: asyncio.Protocol | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.close_timeout = CLOSE_S
        self._has_ended = False
        self._check_timer: asyncio.TimerHandle | None = None
        self._last_message_at = self._message_began_at = self._small_since = self.loop.time()
        self._message_bytes = self._small_frames = 0
        self._paused_at: float | None = None  # since when the client has not read enough
        self._unsent_bytes = 0  # at that time
        self._closing_since: float | None = None
        self._late_pong = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to check."""
        super().connection_made(transport)
        self._check_timer = self.loop.call_later(self.limits.check_s, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop; the HTTP connection forgets this one too."""
        if self._check_timer is not None:
            self._check_timer.cancel()
        super().connection_lost(exc)
        if self.http is not None:
            self.http.connection_lost(exc)
        self.http = None

    def data_received(self, data: bytes) -> None:
        """Parse in slices, so that a flood of tiny frames is noticed before it has taken long."""
        for start in range(0, len(data), SLICE_BYTES):
            if self._has_ended:
                return
            piece = data[start : start + SLICE_BYTES]
            if not self._is_in_message:
                self._message_began_at, self._message_bytes = self.loop.time(), 0
            self._message_bytes += len(piece)
            super().data_received(piece)

    def handle_events(self) -> None:
        """Count small frames; note when a message is complete."""
        frames = [event for event in self.conn.events if isinstance(event, Frame)]
        small = sum(len(frame.data) < SMALL_BYTES for frame in frames)
        if small and self._is_flooded(small):
            self._end(MalformedRequest(f"more than {MAX_SMALL_PER_S} small messages a second"), CloseCode.REFUSED)
            return
        if any(frame.fin and frame.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT) for frame in frames):
            self._last_message_at = self.loop.time()
        super().handle_events()

    def send_receive_event_to_app(self) -> None:
        """Hand a message to the session, a text without its content: texts are refused, and need not be UTF-8."""
        if self.curr_msg_data_type == "text":
            self.frames = [b""]
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer, unless the client does not read: then only the newest ping is answered later (RFC 6455, 5.5.3)."""
        if self.writable.is_set():
            super().handle_ping()
        elif unsent := self.conn.data_to_send():  # those of all pings that were received together
            self._late_pong = unsent[-1]

    def handle_parser_exception(self) -> None:
        """The bytes are no WebSocket frames, or too many: `end`, then the close frame that websockets has prepared."""
        if not self.handshake_complete:
            self.transport.abort()
            return
        if isinstance(self.conn.parser_exc, PayloadTooBig):
            limit = self.config.ws_max_size - FRAME_ID.size
            self._end(BodyTooLarge(f"a frame has more than {limit} bytes"), CloseCode.TOO_LARGE)
        else:
            self._end(MalformedRequest("the bytes received are no WebSocket messages"), CloseCode.MALFORMED)

    def pause_writing(self) -> None:
        """The client reads more slowly than the server writes."""
        super().pause_writing()
        self._paused_at, self._unsent_bytes = self.loop.time(), unsent_bytes(self.transport)

    def resume_writing(self) -> None:
        """The client has read enough."""
        super().resume_writing()
        self._paused_at = None
        late, self._late_pong = self._late_pong, b""
        if late and not self.close_sent:
            self.transport.write(late)

    async def send(self, message: Any) -> None:
        """See ASGI. A refusal over HTTP completes the handshake too; uvicorn would log it as an error."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    def shutdown(self) -> None:
        """The server shuts down: the session ends the stream. A handshake is answered by the application."""
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait(cast(Any, SHUTTING_DOWN))

    @property
    def _is_in_message(self) -> bool:
        return bool(self.conn.reader.buffer) or self.conn.current_size is not None

    def _is_flooded(self, small: int) -> bool:
        now = self.loop.time()
        if now - self._small_since > 1.0:
            self._small_since, self._small_frames = now, 0
        self._small_frames += small
        return self._small_frames > MAX_SMALL_PER_S

    def _end(self, problem: ServerError, code: CloseCode) -> None:
        """Say why, close, and go on reading: bytes that are not read would reset the connection before `end` arrives."""
        self._has_ended = True
        state: dict[str, Any] = self.scope.setdefault("state", {})
        text = end_message(problem, state.get("request_id", ""))
        self.transport.write(Frame(Opcode.TEXT, text.encode()).serialize(mask=False))
        if self.conn.state is State.OPEN:
            self.conn.send_close(code)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        state[END_CODE] = problem.code
        self.queue.put_nowait({"type": "websocket.disconnect", "code": int(code)})
        self.disconnected = True  # a send that waits for the client fails now
        self.writable.set()

    def _check(self) -> None:
        """End or abort what takes too long."""
        self._check_timer = self.loop.call_later(self.limits.check_s, self._check)
        now, limits = self.loop.time(), self.limits
        if self.transport.is_closing() or self.close_sent:
            self._closing_since = self._closing_since or now
            if now - self._closing_since > self.close_timeout:
                self.transport.abort()
        elif not self.handshake_complete:
            return
        elif self._is_stalled(now):
            self._end(RequestTimeout("results are read too slowly"), CloseCode.REFUSED)
        elif self.read_paused:
            self._message_began_at = self._last_message_at = now  # the server's own time does not count
        elif self._is_in_message:
            if now - self._message_began_at > limits.stall_s + self._message_bytes / limits.bytes_per_s:
                self._end(RequestTimeout("a frame arrived too slowly"), CloseCode.REFUSED)
        elif now - self._last_message_at > limits.idle_s:
            self._end(RequestTimeout(f"no frame for {limits.idle_s:.0f} s"), CloseCode.REFUSED)

    def _is_stalled(self, now: float) -> bool:
        """Whether the client has read too little in the last `stall_s`, at least."""
        if self._paused_at is None or now - self._paused_at < self.limits.stall_s:
            return False
        before, self._unsent_bytes = self._unsent_bytes, unsent_bytes(self.transport)
        seconds, self._paused_at = now - self._paused_at, now
        return before - self._unsent_bytes < self.limits.bytes_per_s * seconds
