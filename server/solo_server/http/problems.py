"""Failures as responses: problem+json, and below `/v2` that protocol's error.

Every part of the server that refuses a request does it through here, so that all errors look alike: routes (`ProblemMiddleware`),
and what runs before them (`problem_response`, `refusal`). Needs `solo_server.errors` alone: no kernels, numpy or pydantic.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from solo_server.errors import RequestError, ServerError, Unavailable

LOG = logging.getLogger("solo_server")
MEDIA_TYPE = "application/problem+json"
V2 = "/v2"
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every response that does not set its own: responses are no web pages, and no cache may keep them."""
RAW_SECURITY_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


class ProblemMiddleware:
    """Answers with a problem whatever the routes raise, unless their response has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        has_begun = False

        async def begin(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, begin)
        except Exception as problem:
            if has_begun or scope["type"] == "lifespan":
                raise
            await _response_to(problem, scope)(scope, receive, send)


def problem_response(problem: ServerError, request_id: str, path: str = "") -> Response:
    """The response for `problem`. path: of the request, where it is known."""
    content, media_type = problem_body(problem_json(problem, request_id), path)
    response = Response(content, problem.status, media_type=media_type)
    response.raw_headers += [(b"x-request-id", request_id.encode()), *RAW_SECURITY_HEADERS]
    if isinstance(problem, Unavailable):
        response.raw_headers.append((b"retry-after", str(problem.retry_after_s).encode()))
    if problem.status == 401:
        response.raw_headers.append((b"www-authenticate", b'Bearer realm="solo"'))
    if problem.status == 426:
        response.raw_headers += [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    return response


def refusal(problem: ServerError, request_id: str, extra_headers: Mapping[str, str] | None = None) -> ASGIApp:
    """An ASGI application that answers every request with `problem`."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        response = problem_response(problem, request_id, scope["path"])
        response.headers.update(extra_headers or {})
        await response(scope, receive, send)

    return refuse


def problem_json(problem: ServerError, request_id: str) -> dict[str, Any]:
    """A failure as RFC 9457 problem details with a stable `code`; those that can pass also have a `reason`."""
    content = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    return content | {"reason": problem.reason} if isinstance(problem, Unavailable) else content


def problem_body(details: Mapping[str, Any], path: str) -> tuple[bytes, str]:
    """Problem details as bytes, and their media type; below `/v2` in that protocol's form, with the detail as `error`."""
    if path != V2 and not path.startswith(f"{V2}/"):
        return orjson.dumps(details), MEDIA_TYPE
    kept = {name: details[name] for name in ("code", "request_id", "reason") if name in details}
    return orjson.dumps({"error": details["detail"], **kept}), "application/json"


def _response_to(problem: Exception, scope: Scope) -> Response:
    request_id = scope["state"]["request_id"]
    if isinstance(problem, HTTPException):
        content = {"type": "about:blank", "title": problem.detail, "status": problem.status_code, "detail": problem.detail,
                   "code": _HTTP_CODES.get(problem.status_code, "http_error"), "request_id": request_id}  # fmt: skip
        body, media_type = problem_body(content, scope["path"])
        return Response(body, problem.status_code, problem.headers, media_type)
    if isinstance(problem, ClientDisconnect):
        LOG.info("request %s: the caller disconnected", request_id)
        return Response(status_code=499)  # nobody reads it
    if not isinstance(problem, ServerError):
        LOG.exception("request %s failed", request_id, exc_info=problem)
        problem = ServerError("unexpected failure; see the server's log")
    elif not isinstance(problem, RequestError):
        # refusals are frequent and no fault; the request's own log line has their code
        level = logging.DEBUG if isinstance(problem, Unavailable) else logging.WARNING
        LOG.log(level, "request %s: %s: %s", request_id, problem.code, problem.detail)
    return problem_response(problem, request_id, scope["path"])
