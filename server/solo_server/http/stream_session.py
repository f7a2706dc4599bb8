"""One stream from its first frame to its end: receive, keep the newest frame, compute, send.

    receive ─► a free place? ── yes ─► admit ─► answer ─► send the result ─► take the frame that waits, if there is one
                    └── no ─► it waits, in place of the one that waited: `dropped`

There are `in_flight` places, so a stream takes no more of the service than that, and one frame waits. A place sends its result
before it takes another frame, and nothing is received while `dropped` waits to be sent: with a client that does not read, no memory
grows.
Places pause after a failure, and the receiver after a dropped frame, so that a flood leaves the event loop to other callers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import Receive, Send

from solo_server.errors import (
    DeadlineExceeded,
    MalformedRequest,
    NotReady,
    ServerError,
    Unauthorized,
    Unavailable,
    UnknownModel,
)
from solo_server.http.stream_connection import SHUTTING_DOWN
from solo_server.http.stream_messages import (
    CloseCode,
    Frame,
    dropped_message,
    end_message,
    error_message,
    read_frame,
    ready_message,
    result_message,
)
from solo_server.http.wire import SegmentQuery
from solo_server.observability.telemetry import FrameTelemetry
from solo_server.service.served_model import ServedModel
from solo_server.service.service import Service
from solo_server.types import ImageResult, Query, UInt8

LOG = logging.getLogger("solo_server")
CHECK_S = 1.0
"""How often a stream checks its key and the state of the server."""
MAX_BAD_MESSAGES = 10
"""In a row, that are no frames: whoever sends them speaks another protocol."""
PAUSE_S = 0.005
UNAVAILABLE_PAUSE_S = 0.05
DROPPED_BYTES_PER_S = 50e6
"""Frames that are dropped are received at about this rate, and at most one each `PAUSE_S`: sockets fill up, senders wait."""


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What the handshake asks for. key_is_known: whether the API key, if one is needed, is still among the known ones."""

    query: SegmentQuery
    model: str | None
    version: str | None
    timeout_ms: int
    request_id: str
    key_is_known: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _End:
    """Why a stream ends. problem: `None` where the connection is gone, or has said it itself."""

    problem: ServerError | None = None
    code: CloseCode = CloseCode.REFUSED
    answers_rest: bool = False


class StreamSession:
    """Serves one accepted stream. receive, send: ASGI's, of the WebSocket."""

    def __init__(
        self, service: Service, request: StreamRequest, telemetry: FrameTelemetry, receive: Receive, send: Send
    ) -> None:
        self._service, self._request, self._telemetry = service, request, telemetry
        self._receive, self._send = receive, send
        self._sending = asyncio.Lock()  # one message waits for the connection, the others here
        self._waiting: Frame | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[_End] = asyncio.get_running_loop().create_future()
        self._told: ServedModel | None = None
        self._query: tuple[ServedModel, Query] | None = None
        self._places, self._taken = 1, 0

    async def run(self, model: ServedModel) -> str:
        """Serve until the stream ends; the code of its end, `ok` where the client closed it. model: the one found at first."""
        helpers = [
            asyncio.create_task(self._guard(self._start(model))),
            asyncio.create_task(self._guard(self._watch())),
        ]
        try:
            end = await self._ended
            await _cancel(helpers)
            if self._waiting is not None:
                self._telemetry.frame("dropped" if end.answers_rest else "gone")
                self._waiting = None
            if end.answers_rest and self._running:
                await asyncio.wait(self._running)  # not for ever: their deadlines are
            if end.problem is not None:
                await self._say_end(end.problem, end.code)
            return "ok" if end.problem is None else end.problem.code
        finally:
            await _cancel([*helpers, *self._running])

    async def _start(self, model: ServedModel) -> None:
        await self._tell_model(model)
        await self._receive_frames()

    async def _receive_frames(self) -> None:
        loop, bad = asyncio.get_running_loop(), 0
        while True:
            message = await self._receive()
            if message["type"] != "websocket.receive":
                self._finish(self._shutting_down() if message is SHUTTING_DOWN else _End())
                return
            try:
                frame = read_frame(message.get("bytes"), loop.time())
            except MalformedRequest as problem:
                bad += 1
                if bad >= MAX_BAD_MESSAGES:
                    self._finish(_End(MalformedRequest(f"{bad} messages in a row are no frames")))
                    return
                self._telemetry.frame(problem.code)
                await self._say(error_message(None, problem, self._request.request_id))
                continue
            bad = 0
            await self._offer(frame)

    async def _offer(self, frame: Frame) -> None:
        """Give the frame a place, or let it wait in place of the one that waits."""
        if self._taken < self._places:
            self._taken += 1
            task = asyncio.create_task(self._guard(self._serve(frame)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            await asyncio.sleep(0)
            return
        dropped, self._waiting = self._waiting, frame
        if dropped is not None:
            self._telemetry.frame("dropped")
            await self._say(dropped_message(dropped.number))
            await asyncio.sleep(PAUSE_S + len(dropped.image) / DROPPED_BYTES_PER_S)

    async def _serve(self, first: Frame) -> None:
        """Answer a frame, then each that waits by then."""
        frame: Frame | None = first
        try:
            while frame is not None:
                await asyncio.sleep(await self._answer(frame))
                if self._ended.done():
                    return
                frame, self._waiting = self._waiting, None
        finally:
            self._taken -= 1  # in the same step in which no frame waits: a frame that comes next finds the place

    async def _answer(self, frame: Frame) -> float:
        """Send the result or the error of one frame. Returns how long the place pauses."""
        problem: ServerError | None = None
        with self._telemetry.serving(len(frame.image)) as served:
            try:
                await self._say(await self._result(frame))
                return 0.0
            except ServerError as failed:
                problem = failed
            except OSError:
                raise  # the client is gone
            except Exception as failed:
                LOG.exception("a frame failed", exc_info=failed)
                problem = ServerError("unexpected failure; see the server's log")
            served.code = problem.code
            if isinstance(problem, UnknownModel):
                self._finish(_End(problem, CloseCode.FAILED))
                return 0.0
            await self._say(error_message(frame.number, problem, served.request_id))
            if isinstance(problem, NotReady) and problem.reason == "draining":
                self._finish(self._shutting_down())
        return UNAVAILABLE_PAUSE_S if isinstance(problem, Unavailable) else PAUSE_S

    async def _result(self, frame: Frame) -> str:
        """The message with the result. Raises what `Service.admit` and `AdmittedRequest.answer` raise."""
        request, service = self._request, self._service
        waited_ms = (asyncio.get_running_loop().time() - frame.received_at) * 1e3
        left_ms = request.timeout_ms - int(waited_ms)
        if left_ms <= 0:
            raise DeadlineExceeded("the deadline passed while the frame waited")
        with service.admit(left_ms, request.model, request.version) as admitted:
            model = admitted.model
            if model is not self._told:
                await self._tell_model(model)
            names = model.pipeline.bundle.spec.class_names

            def render(result: ImageResult, _: UInt8) -> str:
                return result_message(frame.number, result, model.name, model.version, names)

            return await admitted.answer(frame.image, self._query_of(model), render)

    def _query_of(self, model: ServedModel) -> Query:
        if self._query is None or self._query[0] is not model:
            self._query = model, self._request.query.to_query(model.pipeline.bundle.spec)
        return self._query[1]

    async def _tell_model(self, model: ServedModel) -> None:
        """`ready`, at first and when another model answers: it has other classes, perhaps."""
        self._told, self._places = model, min(model.in_flight, self._service.settings.max_waiting)
        names = model.pipeline.bundle.spec.class_names
        await self._say(ready_message({"name": model.name, "version": model.version}, names, self._places))

    async def _watch(self) -> None:
        """Check what no message tells of."""
        while True:
            await asyncio.sleep(CHECK_S)
            if not self._request.key_is_known():
                self._finish(_End(Unauthorized("the API key of this stream is not accepted any more")))
            elif self._service.unready == "draining":
                self._finish(self._shutting_down())
            elif self._service.unready == "lost":
                self._finish(_End(self._service.not_ready(), CloseCode.FAILED))

    def _shutting_down(self) -> _End:
        return _End(NotReady("the server is shutting down", "draining"), CloseCode.SHUTTING_DOWN, answers_rest=True)

    def _finish(self, end: _End) -> None:
        if not self._ended.done():
            self._ended.set_result(end)

    async def _guard(self, work: Awaitable[None]) -> None:
        """Run a part of the session; its failure ends the stream."""
        try:
            await work
        except OSError:  # uvicorn's ClientDisconnected is one
            self._finish(_End())
        except Exception as problem:
            LOG.exception("a stream failed", exc_info=problem)
            self._finish(_End(ServerError("unexpected failure; see the server's log"), CloseCode.FAILED))

    async def _say(self, text: str) -> None:
        """Send one message; waits while the client does not read. Raises OSError: it is gone."""
        async with self._sending:
            await self._send({"type": "websocket.send", "text": text})

    async def _say_end(self, problem: ServerError, code: CloseCode) -> None:
        with suppress(OSError):
            await self._say(end_message(problem, self._request.request_id))
            await self._send({"type": "websocket.close", "code": int(code)})


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
