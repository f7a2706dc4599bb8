"""httptools' parser, extended: it ignores `Upgrade` unless the server speaks the protocol that the request asks for.

A server may ignore `Upgrade` and answer as if the field was absent (RFC 9110, 7.8). httptools cannot: it treats such a message as
complete after its head, and parses the body as the next request. Behind a proxy that forwards the body this is request smuggling.
Therefore the head is parsed again without `Upgrade`, by a new parser, which then frames the body.

    bytes ─► parser ─► head with Upgrade ─► head without it ─► new parser ─► body, next request
                  └──── any other request ────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_UPGRADE = b"upgrade"


class RequestParser:
    """The parser of one connection, with the methods of `HttpRequestParser` that uvicorn calls.

    protocol: receives the callbacks; it must ignore a complete head with `should_upgrade()`, because that is parsed again.
    is_supported: whether the current request asks for a protocol that the server speaks; called when its head is complete.
    """

    def __init__(self, protocol: HttpToolsProtocol, is_supported: Callable[[], bool]) -> None:
        self._protocol, self._is_supported = protocol, is_supported
        self._parser = self._fresh()
        self.ignored_bytes = 0
        """Size of the fields that were left out of the current head."""

    def feed_data(self, data: bytes) -> None:
        """Parse received bytes.

        Raises:
            HttpParserError: not HTTP/1.1.
            HttpParserUpgrade: at the end of a head that asks for a protocol which the server speaks.
        """
        rest = memoryview(data)
        while rest:
            try:
                self._parser.feed_data(rest)
                return
            except HttpParserUpgrade as upgrade:
                if self._is_supported():
                    raise
                rest = rest[upgrade.args[0] :]
            self._parse_head_again()

    def get_method(self) -> bytes:
        """See httptools."""
        return self._parser.get_method()

    def get_http_version(self) -> str:
        """See httptools."""
        return self._parser.get_http_version()

    def should_keep_alive(self) -> bool:
        """See httptools."""
        return self._parser.should_keep_alive()

    def should_upgrade(self) -> bool:
        """Whether the current head asks for another protocol, or is a CONNECT."""
        return self._parser.should_upgrade()

    def _parse_head_again(self) -> None:
        """Parse without `Upgrade`. Names and values are parsed ones, so that none of their bytes can start another field."""
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        url, headers = self._protocol.url, self._protocol.headers
        kept = [(name, value) for name, value in headers if name != _UPGRADE]
        lines = [b"%s %s HTTP/%s" % (method, url, version), *(b"%s: %s" % field for field in kept), b"", b""]
        self.ignored_bytes = sum(len(name) + len(value) + 4 for name, value in headers if name == _UPGRADE)
        self._parser = self._fresh()
        self._parser.feed_data(b"\r\n".join(lines))
        self.ignored_bytes = 0

    def _fresh(self) -> HttpRequestParser:
        parser = HttpRequestParser(self._protocol)
        parser.set_dangerous_leniencies(
            lenient_data_after_close=True
        )  # as uvicorn does: an earlier request is answered
        return parser
