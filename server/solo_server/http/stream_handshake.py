"""What is checked of a request that opens a stream, before the connection becomes a WebSocket.

    head ─► opens_stream ── no ──► an ordinary request: `GET /stream` is answered 426
                └── yes ─► API key, in a header or a subprotocol ─► check_origin, check_subprotocol ─► accepted, or 4xx

Browsers send `Origin`, and there is no CORS for WebSockets: without the check, any page could use its visitor to reach the server.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.types import Scope

from solo_server.errors import OriginRefused, UpgradeRequired
from solo_server.http.bodies import first_header
from solo_server.http.stream_messages import SUBPROTOCOL

STREAM_PATH = "/stream"
KEY_PROTOCOL = "solo.key."
VERSION = b"13"
_PORTS = {"http": 80, "https": 443}
_RULE = f"this path speaks WebSocket (RFC 6455, version 13) with the subprotocol {SUBPROTOCOL}"


def opens_stream(method: bytes, http_version: str, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a head is a complete WebSocket handshake for a path that ends with `/stream`. headers: names in lower case.

    Anything else is an ordinary request, whose `Upgrade` is ignored.
    """
    path, values = url.partition(b"?")[0], dict[bytes, list[bytes]]()
    for name, value in headers:
        values.setdefault(name, []).append(value.strip())
    return (
        (method, http_version) == (b"GET", "1.1")
        and url.startswith(b"/") and url.isascii() and path.endswith(STREAM_PATH.encode())
        and [value.lower() for value in values.get(b"upgrade", ())] == [b"websocket"]
        and values.get(b"sec-websocket-version") == [VERSION]
        and _is_nonce(values.get(b"sec-websocket-key", []))
        and set(values.get(b"content-length", ())) <= {b"0"} and b"transfer-encoding" not in values
    )  # fmt: skip


def key_of(subprotocols: Sequence[str]) -> str:
    """The API key that a browser sends as a subprotocol, since it cannot set headers; empty without one that is base64url."""
    encoded = next((offer.removeprefix(KEY_PROTOCOL) for offer in subprotocols if offer.startswith(KEY_PROTOCOL)), "")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True).decode("latin-1")
    except (binascii.Error, ValueError):
        return ""


def check_subprotocol(offers: Sequence[str]) -> str | None:
    """The subprotocol to accept: ours, or none if none is offered.

    Raises:
        UpgradeRequired: only others are offered.
    """
    if offers and SUBPROTOCOL not in offers:
        raise UpgradeRequired(f"{_RULE}, which this request does not offer")
    return SUBPROTOCOL if offers else None


def check_origin(scope: Scope, allowed: Sequence[str]) -> None:
    """Check the page that opens a stream. allowed: origins of other hosts, or `*`. Clients that send no `Origin` are no pages.

    Raises:
        OriginRefused: the page is neither of this host nor of an allowed origin.
    """
    origin = first_header(scope, b"origin")
    if origin is None or "*" in allowed or origin in allowed:
        return
    host = first_header(scope, b"host")
    try:
        parts = urlsplit(origin)
        own = urlsplit(f"//{host}")
        default = _PORTS.get(parts.scheme)
        if default and host and (parts.hostname, parts.port or default) == (own.hostname, own.port or default):
            return
    except ValueError:
        pass  # no origin or no host: refused
    raise OriginRefused("the page is of another origin, which SOLO_CORS_ORIGINS does not allow")


def upgrade_required() -> UpgradeRequired:
    """The answer to a request for the path of streams that is no complete handshake."""
    return UpgradeRequired(_RULE)


def _is_nonce(keys: Sequence[bytes]) -> bool:
    """Whether this is one `Sec-WebSocket-Key`: 16 bytes in base64."""
    try:
        return len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        return False
