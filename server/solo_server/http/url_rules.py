"""Which URLs the server may fetch: a strict reading of URLs, and the prefixes of `SOLO_IMAGE_URLS`.

A URL that could be read in two ways is refused, not repaired: another program in the path might read it the other way.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from solo_server.errors import SettingsError, UrlNotAllowed

MAX_URL_CHARACTERS = 4096
LOCALHOST = "localhost"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PATH_CHARACTER = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"  # RFC 3986, pchar
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>[^/?#@]+?)(?::(?P<port>[1-9][0-9]{{0,4}}))?"
    rf"(?P<path>(?:/{_PATH_CHARACTER}*)+)(?P<query>\?(?:{_PATH_CHARACTER}|[/?])*)?"
)
_NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")  # browsers and libc read such a name as an address
_NEVER_IN_A_PATH = frozenset(b"./\\%") | frozenset(range(32)) | {127}
"""Bytes that are refused where they are percent-encoded: some server decodes them once more, and sees another path."""
_SPECIAL_NETWORKS = [
    ipaddress.ip_network(text)
    for text in (
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # Azure's own services, inside each of its virtual networks
        "2001::/23",  # IETF protocol assignments, Teredo among them
        "2002::/16",  # 6to4: with an IPv4 address inside
        "3fff::/20",  # documentation
    )
]
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class WebUrl:
    """The parts of a URL. host: a name in small letters, or an IP address without brackets; path: from its `/`; query: with `?`."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def authority(self) -> str:
        """What the header `Host` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        """The URL."""
        return f"{self.scheme}://{self.authority}{self.path}{self.query}"

    def is_prefix_of(self, url: WebUrl) -> bool:
        """Whether the other has the same scheme, host and port, and its path begins with this one's, which ends with `/`."""
        same_origin = (url.scheme, url.host, url.port) == (self.scheme, self.host, self.port)
        return same_origin and url.path.startswith(self.path)


@dataclass(frozen=True, slots=True)
class AllowList:
    """URL prefixes; a URL is allowed if one is a prefix of it."""

    prefixes: tuple[WebUrl, ...]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> AllowList:
        """The prefixes of `SOLO_IMAGE_URLS`.

        Raises:
            SettingsError: one is no URL as `parse_url` reads it, has a query, or does not end with `/`.
        """
        try:
            return cls(tuple(map(parse_prefix, texts)))
        except ValueError as problem:
            raise SettingsError(f"SOLO_IMAGE_URLS: {problem}") from None

    def check(self, text: str, which: str = "the URL of the image") -> WebUrl:
        """The URL, if it is allowed. which: what the message calls it.

        Raises:
            UrlNotAllowed: it is not, or it is no URL as `parse_url` reads it.
        """
        try:
            url = parse_url(text)
        except ValueError as problem:
            raise UrlNotAllowed(f"{which} is refused: {problem}") from None
        if not any(prefix.is_prefix_of(url) for prefix in self.prefixes):
            raise UrlNotAllowed(f"{which} is not below one that this server may fetch from")
        return url


def parse_url(text: str) -> WebUrl:
    """The parts of an absolute http or https URL.

    Refused although some software accepts it: capital letters, user names, fragments, backslashes, spaces, characters that are not
    ASCII, a dot after the host, addresses in other forms than the usual one, `.`, `..` and empty segments, also with parameters
    (`..;a`), and percent-encoded dots, slashes, percent signs and control characters in the path.

    Raises:
        ValueError: the text is not such a URL; says why.
    """
    if len(text) > MAX_URL_CHARACTERS:
        raise ValueError(f"it has more than {MAX_URL_CHARACTERS} characters")
    parts = _URL.fullmatch(text)
    if parts is None:
        raise ValueError(
            "it must be http:// or https://, in small letters, a host, and a path with other characters percent-encoded, "
            "without user name and fragment"
        )
    scheme, path = parts["scheme"], parts["path"]
    port = int(parts["port"] or _DEFAULT_PORTS[scheme])
    if port > 65_535:
        raise ValueError("there is no such port")
    _check_path(path)
    return WebUrl(scheme, _host(parts["host"]), port, path, parts["query"] or "")


def parse_prefix(text: str) -> WebUrl:
    """A URL that stands for all below it.

    Raises:
        ValueError: it is no URL as `parse_url` reads it, has a query, or does not end with `/`.
    """
    try:
        url = parse_url(text)
        if url.query or not url.path.endswith("/"):
            raise ValueError("a prefix ends with /, which is the end of its last folder")
    except ValueError as problem:
        example = "https://images.example.org/photos/"
        raise ValueError(f"{text!r} is no URL prefix such as {example}: {problem}") from None
    return url


def is_address(host: str) -> bool:
    """Whether the host of a `WebUrl` is an IP address."""
    return ":" in host or _ENDS_IN_A_NUMBER.fullmatch(host) is not None


def is_public(address: str) -> bool:
    """Whether an IP address is an ordinary one of the internet: not private, loopback, link-local, multicast, reserved or otherwise
    special. One with an IPv4 address inside (IPv4-mapped, NAT64) is what that is."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _GLOBAL_IPV6:
            return False
    is_special = ip.is_multicast or ip.is_reserved or any(ip in network for network in _SPECIAL_NETWORKS)
    return ip.is_global and not is_special


def _check_path(path: str) -> None:
    segments = path.split("/")[1:]
    if any(not segment for segment in segments[:-1]):
        raise ValueError("its path has two slashes in a row")
    if any(segment.split(";")[0] in (".", "..") for segment in segments):
        raise ValueError("its path has a segment . or ..")
    encoded = b"".join(unquote_to_bytes(code) for code in re.findall("%..", path))
    if _NEVER_IN_A_PATH.intersection(encoded):
        raise ValueError("its path has a percent-encoded dot, slash, percent sign or control character")


def _host(text: str) -> str:
    """A name, or an address in its usual form."""
    is_ipv6 = text.startswith("[") and text.endswith("]")
    host = text[1:-1] if is_ipv6 else text
    if is_ipv6 or _ENDS_IN_A_NUMBER.fullmatch(host):
        address = ipaddress.IPv6Address if is_ipv6 else ipaddress.IPv4Address
        try:
            usual = str(address(host))
        except ValueError:
            usual = ""
        if usual != host or "%" in host:
            raise ValueError("its host is an address, but not in the usual form")
    elif not _NAME.fullmatch(host):
        raise ValueError("its host is no name of small letters, digits and hyphens")
    return host
