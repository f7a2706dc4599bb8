"""The body `{"url": "https://..."}`: an image by URL in place of its bytes."""

from __future__ import annotations

from typing import Any

import orjson

from solo_server.errors import InvalidQuery
from solo_server.http.url_rules import MAX_URL_CHARACTERS

URL_BODY: dict[str, Any] = {
    "type": "object",
    "properties": {"url": {"type": "string", "description": "below one of SOLO_IMAGE_URLS"}},
    "required": ["url"],
    "additionalProperties": False,
}
"""The body in the OpenAPI document."""
_MAX_BYTES = 2 * MAX_URL_CHARACTERS


def is_url_body(content_type: str | None, body: bytes) -> bool:
    """Whether the body is JSON by its type and its first character; an image is one, whatever its type says."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    return media_type == "application/json" and body[:64].lstrip()[:1] in (b"{", b"[", b'"')


def read_url_body(body: bytes) -> str:
    """The URL, which may be any text.

    Raises:
        InvalidQuery: the body is not `{"url": "..."}`.
    """
    try:
        content = orjson.loads(body) if len(body) <= _MAX_BYTES else None
    except orjson.JSONDecodeError:
        content = None
    url = content["url"] if isinstance(content, dict) and content.keys() == {"url"} else None
    if not isinstance(url, str):
        raise InvalidQuery(
            'a body of type application/json is {"url": "..."} and nothing else; parameters are in the query'
        )
    return url
