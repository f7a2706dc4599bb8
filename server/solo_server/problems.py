"""A failure as an answer: problem+json, and below `/v2` that protocol's error;
for the application (`problem_response`) and for what stands before it (`refusal`).

Every part of the server that says no says it through here, so that all refusals look alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from solo_server.errors import ServerError, Unavailable
from solo_server.schemas import problem_json

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


def problem_headers(problem: ServerError, request_id: str) -> dict[str, str]:
    """What an answer about `problem` carries besides its body."""
    headers = {"x-request-id": request_id, **SECURITY_HEADERS}
    if isinstance(problem, Unavailable):
        headers["retry-after"] = str(problem.retry_after_s)
    if problem.status == 401:
        headers["www-authenticate"] = 'Bearer realm="solo"'
    return headers


def problem_response(problem: ServerError, request_id: str, path: str = "") -> Response:
    """The answer about `problem`. path: of the request, where it is known."""
    content, media_type = problem_body(problem_json(problem, request_id), path)
    return Response(content, problem.status, problem_headers(problem, request_id), media_type)


def problem_body(details: Mapping[str, Any], path: str) -> tuple[bytes, str]:
    """Problem details as bytes, and their media type; below `/v2` as its protocol has them, `error` being the text."""
    if path != V2 and not path.startswith(f"{V2}/"):
        return orjson.dumps(details), MEDIA_TYPE
    kept = {name: details[name] for name in ("code", "request_id", "reason") if name in details}
    return orjson.dumps({"error": details["detail"], **kept}), "application/json"


def refusal(problem: ServerError, request_id: str, extra: Mapping[str, str] | None = None) -> ASGIApp:
    """An application that answers every request with `problem`; extra: further headers."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        response = problem_response(problem, request_id, scope["path"])
        response.headers.update(extra or {})
        await response(scope, receive, send)

    return refuse
