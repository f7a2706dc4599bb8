"""The only use of httpx: opens connections as the environment says, and translates requests, responses and errors.

Call ─► request_arguments ─► httpx ─► to_response ─► HttpResponse          an httpx error ─► errors_translated ─► our own error
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
from solo_client.protocol import MULTIPART_FIELD, Call, HttpResponse

T = TypeVar("T")
Transport = TypeVar("Transport", httpx.HTTPTransport, httpx.AsyncHTTPTransport)


def checked_url(base_url: str) -> httpx.URL:
    """The URL as httpx has it.

    Raises:
        InvalidArgument: httpx cannot parse it.
    """
    try:
        return httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise InvalidArgument("base_url", f"is not a URL: {error}") from error


def open_transport(kind: type[Transport], proxy: Proxy | None) -> Transport:
    """Open connections through `proxy`, or direct ones, with the certificates that SSL_CERT_FILE or SSL_CERT_DIR names.

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


def request_arguments(call: Call[T]) -> dict[str, Any]:  # Any: keyword request_arguments of several types for httpx
    """The keyword request_arguments of `build_request` for a call."""
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


def to_response(response: httpx.Response) -> HttpResponse:
    """The response, for `Call.parse`."""
    return HttpResponse(response.status_code, response.headers, response.content)


@contextmanager
def errors_translated(url: httpx.URL, proxy: Proxy | None) -> Iterator[None]:
    """Turn httpx's errors into ours, with the URL (without credentials and query), the reason, and the proxy if there is one.

    Raises:
        Unreachable, TimedOut, ConnectionLost, UnexpectedAnswer: see `errors`.
    """
    shown = str(url.copy_with(userinfo=b"", query=None))
    through = "" if proxy is None else f" (through the proxy {proxy.shown} from {proxy.variable})"
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
        raise Unreachable(shown, f"{str(error) or 'no connection in time'}{through}") from error
    except UnicodeError as error:  # by the resolver: a host with an empty label, or one of more than 63 characters
        raise Unreachable(shown, f"no such host: {error}{through}") from error
    except httpx.TimeoutException as error:
        raise TimedOut(shown, f"no answer in time{through}") from error
    except httpx.TransportError as error:
        raise ConnectionLost(shown, f"{str(error) or 'the connection broke'}{through}") from error
    except httpx.RequestError as error:
        raise UnexpectedAnswer(ROOT, f"cannot be read: {error}{through}") from error
    except UnexpectedAnswer as error:
        if proxy is None:
            raise
        raise UnexpectedAnswer(error.field, f"{error.reason}{through}") from error
