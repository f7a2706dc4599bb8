"""Where a request has its API key: in a header, or where the clients of another API have it, below the paths of that API.

Authorization: Bearer KEY, X-API-Key: KEY    every path
Authorization: Basic, KEY as the password    /label-studio/...
?api_key=KEY                                 /roboflow/...
subprotocol solo.key.BASE64URL               WebSockets, whose headers a browser cannot set
{"api_key": "KEY", ...}                      POST to `BODY_PATHS`; the route calls `check_body_key`
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from solo_server.http.problems import ROBOFLOW, is_below
from solo_server.http.stream_handshake import key_of

LABEL_STUDIO = "/label-studio"
BODY_PATHS = frozenset({f"{ROBOFLOW}/infer/instance_segmentation", f"{ROBOFLOW}/model/add"})
_CHECK = "check_body_key"
_MAX_PARAMETERS = 64

CheckKey = Callable[[str], None]
"""Accepts a key, or raises Unauthorized."""


def key_in_request(scope: Scope) -> str | None:
    """The key in the headers, the query or the subprotocols; `None` if there is none."""
    headers, path = Headers(scope=scope), str(scope["path"])
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic" and is_below(path, LABEL_STUDIO):
        return _password(credentials)
    key = headers.get("x-api-key")
    if key is None and is_below(path, ROBOFLOW):
        return _key_in_query(scope["query_string"])
    return key_of(scope["subprotocols"]) if key is None and scope["type"] == "websocket" else key


def await_body_key(scope: Scope, check: CheckKey) -> bool:
    """Whether the key may be in the body. If so, the route calls `check` through `check_body_key`."""
    if scope.get("method") != "POST" or scope["path"] not in BODY_PATHS:
        return False
    scope["state"][_CHECK] = check
    return True


def is_key_awaited(request: Request) -> bool:
    """Whether the key of a request must be in its body."""
    return _CHECK in request.scope.get("state", {})


def check_body_key(request: Request, key: Any) -> None:
    """Check the key in a body, unless the request needs none or had one elsewhere. Every route in `BODY_PATHS` calls it first.

    Raises:
        Unauthorized: no key, or an unknown one.
    """
    check = request.scope.get("state", {}).pop(_CHECK, None)
    if check is not None:
        check(key if isinstance(key, str) else "")


def _password(credentials: str) -> str:
    """The password of Basic credentials; empty if they are malformed."""
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _key_in_query(query_string: bytes) -> str | None:
    try:
        return parse_qs(query_string.decode("latin-1"), max_num_fields=_MAX_PARAMETERS).get("api_key", [None])[0]
    except ValueError:  # too many parameters
        return None
