"""Images by URL: fetched only where `SOLO_IMAGE_URLS` allows it.

    text ─► allow-list (`url_rules.py`) ─► addresses of the name, all public ─► connection to one of them ─► GET ─► bytes
                 ▲                                                                                           │
                 └──────────────────────── redirect, three at most ──────────────────────────────────────────┘

The connection goes to an address that was checked, so that a name cannot lead elsewhere between the check and the connection. No
proxy or cookie is used, and no credential but those of `url_tokens.py`. The bytes are decoded as those of any request.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from urllib.parse import urljoin

from httptools import HttpParserError, HttpParserUpgrade

from solo_server.errors import UrlNotAllowed, UrlUnreachable
from solo_server.http.url_response import UrlResponse
from solo_server.http.url_rules import LOCALHOST, AllowList, WebUrl, is_address, is_public
from solo_server.http.url_tokens import UrlToken, authorization, read_tokens
from solo_server.settings import Settings

LOG = logging.getLogger("solo_server")
FETCH_SECONDS = 20.0
"""For everything together: names, connections, redirects, the image. A request's own deadline can be earlier."""
CONNECT_SECONDS = 5.0
"""For a connection to one address; then the name's next one is tried."""
MAX_REDIRECTS = 3
_CHUNK_BYTES = 64 << 10

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The IP addresses of a host name; raises OSError if there are none."""


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system's resolver has them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class ImageUrls:
    """Fetches images. allowed: none if the setting is off; max_bytes: of one image; tokens: for hosts that need one."""

    allowed: AllowList
    max_bytes: int
    tokens: tuple[UrlToken, ...] = ()
    resolve: Resolve = resolve
    seconds: float = FETCH_SECONDS

    @classmethod
    def read(cls, settings: Settings) -> ImageUrls:
        """Raises SettingsError: the allow-list or the file of tokens is invalid."""
        tokens = read_tokens(settings.image_urls_token_file)
        return cls(AllowList.parse(settings.image_urls), settings.max_body_bytes, tokens)

    @property
    def is_on(self) -> bool:
        """Whether any URL is allowed."""
        return bool(self.allowed.prefixes)

    async def fetch_image(self, url: str) -> bytes:
        """The bytes at a URL; at least one. They may be anything: the decoder looks whether they are an image.

        Raises:
            UrlNotAllowed: the URL, one that it redirects to, or an address of their hosts is not allowed.
            UrlUnreachable: there is no such host, no connection, no answer in time, or another answer than 200 with content.
            BodyTooLarge: more than `max_bytes`.
        """
        if not self.is_on:
            raise UrlNotAllowed("images by URL are switched off on this server; send the bytes of the image")
        try:
            async with asyncio.timeout(self.seconds):
                return await self._follow(url)
        except TimeoutError:
            raise UrlUnreachable(f"the image was not there within {self.seconds:g} s") from None
        except (OSError, HttpParserError, HttpParserUpgrade) as problem:
            LOG.info("image by URL: %s: %r", type(problem).__name__, str(problem))
            raise UrlUnreachable(_reason(problem)) from problem

    async def _follow(self, text: str) -> bytes:
        url = self.allowed.check(text)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._get(url, await self._addresses(url))
            if response.redirect is None:
                return response.content()
            url = self.allowed.check(_target(url, response.redirect), "the target of its redirect")
        raise UrlUnreachable(f"the URL redirects more than {MAX_REDIRECTS} times")

    async def _addresses(self, url: WebUrl) -> list[str]:
        """The addresses to connect to. Those of a name must be public, all of them. An address or `localhost` in the allow-list is
        the operator's own word."""
        if is_address(url.host):
            return [url.host]
        addresses = await self.resolve(url.host, url.port)
        is_fit = _is_loopback if url.host == LOCALHOST else is_public
        if not addresses or not all(map(is_fit, addresses)):
            LOG.warning("image by URL: %s has addresses that are not allowed: %s", url.host, ", ".join(addresses))
            raise UrlNotAllowed("the host of the URL has an address that this server may not fetch from")
        return addresses

    async def _get(self, url: WebUrl, addresses: list[str]) -> UrlResponse:
        reader, writer = await _connect(url, addresses)
        try:
            writer.write(_request(url, authorization(self.tokens, url)))
            response = UrlResponse(self.max_bytes)
            while not response.is_complete:
                chunk = await reader.read(_CHUNK_BYTES)
                response.feed(chunk)
            return response
        finally:
            writer.transport.abort()  # not close(): what is left of the answer does not matter


async def _connect(url: WebUrl, addresses: list[str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first address that takes one; the certificate must be the host's."""
    context = _tls() if url.scheme == "https" else None
    problem: OSError = ConnectionError("no address")
    for address in addresses:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(
                    address, url.port, ssl=context, server_hostname=url.host if context else None
                )
        except OSError as failure:  # TimeoutError too
            problem = failure
    raise problem if not isinstance(problem, TimeoutError) else ConnectionError("no connection in time")


@cache
def _tls() -> ssl.SSLContext:
    """The system's authorities, read once: it takes tens of milliseconds."""
    return ssl.create_default_context()


def _target(url: WebUrl, location: str) -> str:
    """The absolute URL of a redirect; not checked yet."""
    try:
        return urljoin(url.text, location)
    except ValueError:  # brackets that are no IPv6 address
        return location


def _request(url: WebUrl, token: str | None) -> bytes:
    lines = [
        f"GET {url.path}{url.query} HTTP/1.1",
        f"Host: {url.authority}",
        "User-Agent: solo-inference",
        "Accept: image/*",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if token is not None:
        lines.append(f"Authorization: {token}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _reason(problem: Exception) -> str:
    """What the caller is told: nothing of addresses or of the network here."""
    if isinstance(problem, socket.gaierror):
        return "the host of the URL is not known"
    if isinstance(problem, ssl.SSLError):
        return "there is no trusted TLS connection to the host of the URL"
    if isinstance(problem, OSError):
        return "there is no connection to the host of the URL"
    return "the host of the URL does not answer in HTTP/1.1"
