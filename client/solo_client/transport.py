"""httpx, as the two clients use it: connections opened as the environment says, requests and failures translated.

Call ─► arguments ─► httpx ─► read_answer ─► Answer          any failure on the way ─► failures_named ─► our own error
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from solo_client.environment import Proxy, certificates_unreadable, check_certificates
from solo_client.errors import ConnectionLost, InvalidArgument, TimedOut, UnexpectedAnswer, Unreachable
from solo_client.field import ROOT
from solo_client.media import media_type
from solo_client.protocol import MULTIPART_FIELD, Answer, Call

T = TypeVar("T")
Transport = TypeVar("Transport", httpx.HTTPTransport, httpx.AsyncHTTPTransport)


def checked_url(base_url: str) -> httpx.URL:
    """The URL, for httpx.

    Raises:
        InvalidArgument: httpx cannot read it.
    """
    try:
        return httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise InvalidArgument("base_url", f"is no URL: {error}") from error


def open_transport(kind: type[Transport], proxy: Proxy | None) -> Transport:
    """Connections by way of `proxy`, or direct ones, with the certificates that SSL_CERT_FILE or SSL_CERT_DIR names.

    Raises:
        InvalidEnvironment: the proxy or the certificates cannot be used; the variable is named.
    """
    check_certificates()
    try:
        context = httpx.create_ssl_context()
    except OSError as error:
        raise certificates_unreadable(error) or error from error
    if proxy is None:
        return kind(verify=context)
    try:
        return kind(verify=context, proxy=httpx.Proxy(proxy.url))
    except ImportError as error:
        raise proxy.unusable("needs a package: pip install 'httpx[socks]'") from error
    except (httpx.InvalidURL, ValueError):
        raise proxy.unusable(
            "is not a proxy's URL, such as http://proxy:3128"
        ) from None  # the cause can hold a password


def arguments(call: Call[T]) -> dict[str, Any]:  # Any: keyword arguments of several types for httpx
    """The keyword arguments of `build_request` for a call."""
    common: dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "params": dict(call.parameters),
        "headers": dict(call.headers),
    }
    if call.files:
        files = [(MULTIPART_FIELD, (p.filename, p.body, media_type(p.body))) for p in call.files]
        return common | {"files": files}
    return common | {"content": call.body}


def read_answer(response: httpx.Response) -> Answer:
    """The answer, for `Call.parse`."""
    return Answer(response.status_code, response.headers, response.content)


@contextmanager
def failures_named(url: httpx.URL, proxy: Proxy | None) -> Iterator[None]:
    """Turn httpx's failures into ours, with the URL (without credentials and query), a reason, and the proxy on the way.

    Raises:
        Unreachable, TimedOut, ConnectionLost, UnexpectedAnswer: see `errors`.
    """
    shown = str(url.copy_with(userinfo=b"", query=None))
    way = "" if proxy is None else f" (by the proxy {proxy.shown} that {proxy.variable} names)"
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
        raise Unreachable(shown, f"{str(error) or 'no connection in time'}{way}") from error
    except UnicodeError as error:  # by the resolver: a host with an empty label, or one of more than 63 characters
        raise Unreachable(shown, f"no such host: {error}{way}") from error
    except httpx.TimeoutException as error:
        raise TimedOut(shown, f"no answer in time{way}") from error
    except httpx.TransportError as error:
        raise ConnectionLost(shown, f"{str(error) or 'the connection broke'}{way}") from error
    except httpx.RequestError as error:
        raise UnexpectedAnswer(ROOT, f"cannot be read: {error}{way}") from error
    except UnexpectedAnswer as error:
        if proxy is None:
            raise
        raise UnexpectedAnswer(error.field, f"{error.reason}{way}") from error
