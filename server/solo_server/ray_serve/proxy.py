"""What Ray's proxy answers itself, in our form; and one request id from end to end.

    caller ─► [RayProblems ─► Ray: its own request id ─► router] ─► replica: [OneRequestId ─► RequestMiddleware ─► ...]

Ray wraps its proxies (and with HAProxy, the server in each replica) in the middlewares that a function named in the environment
variable `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` returns. `solo serve --ray` sets it; on a cluster, `ray start` must have it.
A proxy serves all applications of its cluster: answers of others pass unchanged, unless they are texts of status 503 or 408.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from solo_server.errors import DeadlineExceeded, NotReady, Overloaded, ServerError
from solo_server.http.problems import problem_response
from solo_server.http.request_middleware import REQUEST_ID, new_request_id

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
CALLBACK_PATH = "solo_server.ray_serve.proxy.middlewares"
LOG = logging.getLogger("ray.serve")
_RAYS_OWN = "/-/"
"""Paths of Ray's proxy: health and routes."""
_ID = "x-request-id"
_BY_RAY = "text/plain"


def middlewares() -> list[Middleware]:
    """The callback."""
    return [Middleware(RayProblems)]


class RayProblems:
    """Makes problems of Ray's own answers. The id of a request that has none, or a wrong one, is set here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["path"].startswith(_RAYS_OWN):
            await self._app(scope, receive, send)
            return
        request_id = _set_id(scope)
        answer = _Answer(send)
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            if answer.has_begun:
                raise
            LOG.exception("request %s failed in the proxy", request_id)
        problem = answer.problem or (None if answer.has_begun else _replica_lost())
        if problem is not None:
            await problem_response(problem, request_id, scope["path"])(scope, receive, send)


class _Answer:
    """One answer on its way. problem: what to answer instead."""

    __slots__ = ("_send", "has_begun", "problem")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False
        self.problem: ServerError | None = None

    async def send(self, message: Message) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = Headers(raw=message["headers"])
            if headers.get("content-type", "").startswith(_BY_RAY) and "x-content-type-options" not in headers:
                self.problem = _problem(message["status"])
        if self.problem is None:
            await self._send(message)


class OneRequestId:
    """Ray's proxy adds the request's id to each answer: ours, the same, is left out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        sent = Headers(scope=scope).get(_ID) if scope["type"] == "http" else None

        async def send_one(message: Message) -> None:
            if message["type"] == "http.response.start" and sent is not None:
                headers = MutableHeaders(raw=list(message["headers"]))
                if headers.get(_ID) == sent:
                    del headers[_ID]
                    message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, send_one)


def _set_id(scope: Scope) -> str:
    headers: Any = MutableHeaders(scope=scope)
    given = headers.get(_ID, "")
    if not REQUEST_ID.fullmatch(given):
        headers[_ID] = given = new_request_id()
    return str(given)


def _problem(status: int) -> ServerError | None:
    if status == 503:
        return Overloaded("every replica is busy", "queue_full")
    return DeadlineExceeded("the answer was not ready before the proxy's deadline") if status == 408 else None


def _replica_lost() -> NotReady:
    return NotReady("the replica that had this request has ended; send it again", "lost")
