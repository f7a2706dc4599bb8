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


def url_of(content_type: str | None, body: bytes, *, has_urls: bool) -> str | None:
    """The URL in a body, which may be any text. `None` if the body is something else, to be decoded as an image: an image may have
    any `Content-Type`, and no format of images begins as JSON does.

    has_urls: images by URL are switched on; if not, JSON without a URL is something else too.

    Raises:
        InvalidQuery: JSON of another form.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type != "application/json" or body[:64].lstrip()[:1] not in (b"{", b"[", b'"'):
        return None
    url = _url(body)
    if url is None and has_urls:
        raise InvalidQuery(
            'a body of type application/json is {"url": "..."} and nothing else; parameters are in the query'
        )
    return url


def _url(body: bytes) -> str | None:
    try:
        content = orjson.loads(body) if len(body) <= _MAX_BYTES else None
    except orjson.JSONDecodeError:
        return None
    url = content["url"] if isinstance(content, dict) and content.keys() == {"url"} else None
    return url if isinstance(url, str) else None
