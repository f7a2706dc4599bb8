"""A failure as an answer: problem+json, and below `/v2` that protocol's error;
for the routes (`Problems`) and for what stands before them (`problem_response`, `refusal`).

Every part of the server that says no says it through here, so that all refusals look alike.
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
from solo_server.http.wire import problem_json

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
"""Of every answer that does not set its own: nothing here is a page, and nothing may be kept by a cache."""
RAW_SECURITY_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


class Problems:
    """Answers whatever the routes raise, unless their answer has begun."""

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
            if has_begun or scope["type"] != "http":
                raise
            await _answer_to(problem, scope)(scope, receive, send)


def problem_response(problem: ServerError, request_id: str, path: str = "") -> Response:
    """The answer about `problem`. path: of the request, where it is known."""
    content, media_type = problem_body(problem_json(problem, request_id), path)
    response = Response(content, problem.status, media_type=media_type)
    response.raw_headers += [(b"x-request-id", request_id.encode()), *RAW_SECURITY_HEADERS]
    if isinstance(problem, Unavailable):
        response.raw_headers.append((b"retry-after", str(problem.retry_after_s).encode()))
    if problem.status == 401:
        response.raw_headers.append((b"www-authenticate", b'Bearer realm="solo"'))
    return response


def problem_body(details: Mapping[str, Any], path: str) -> tuple[bytes, str]:
    """Problem details as bytes, and their media type; below `/v2` as its protocol has them, `error` being the text."""
    if path != V2 and not path.startswith(f"{V2}/"):
        return orjson.dumps(details), MEDIA_TYPE
    kept = {name: details[name] for name in ("code", "request_id", "reason") if name in details}
    return orjson.dumps({"error": details["detail"], **kept}), "application/json"


def _answer_to(problem: Exception, scope: Scope) -> Response:
    request_id = scope["state"]["request_id"]
    if isinstance(problem, HTTPException):
        content = {"type": "about:blank", "title": problem.detail, "status": problem.status_code, "detail": problem.detail,
                   "code": _HTTP_CODES.get(problem.status_code, "http_error"), "request_id": request_id}  # fmt: skip
        body, media_type = problem_body(content, scope["path"])
        return Response(body, problem.status_code, problem.headers, media_type)
    if isinstance(problem, ClientDisconnect):
        LOG.info("request %s: the caller went away", request_id)
        return Response(status_code=499)  # nobody reads it
    if not isinstance(problem, ServerError):
        LOG.exception("request %s failed", request_id, exc_info=problem)
        problem = ServerError("an unexpected failure; the log knows more")
    elif not isinstance(problem, RequestError):
        # refusals come by the hundred and are no fault; the request's own line has their code
        level = logging.DEBUG if isinstance(problem, Unavailable) else logging.WARNING
        LOG.log(level, "request %s: %s: %s", request_id, problem.code, problem.detail)
    return problem_response(problem, request_id, scope["path"])


def refusal(problem: ServerError, request_id: str, extra: Mapping[str, str] | None = None) -> ASGIApp:
    """An application that answers every request with `problem`; extra: further headers."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        response = problem_response(problem, request_id, scope["path"])
        response.headers.update(extra or {})
        await response(scope, receive, send)

    return refuse
