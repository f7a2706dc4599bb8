"""httptools' parser, but a request that asks for another protocol is read as plain HTTP/1.1 unless that protocol is spoken here.

RFC 9110, 7.8: a server may ignore `Upgrade`, and then answers the request as if the field was absent. httptools cannot: it calls
the message complete at the end of its head, and takes the bytes of its body for the next request. Behind a proxy that counts the
body that is request smuggling. So the head is parsed a second time, by a new parser and without `Upgrade`, which frames the body.

    bytes ─► parser ─► head with Upgrade ─► head without it ─► new parser ─► body, next request
                  └──── any other request ────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_UPGRADE = b"upgrade"


class RequestParser:
    """For one connection; what uvicorn's protocol uses of `HttpRequestParser`.

    protocol: hears of requests; it must leave the head of a request with `should_upgrade()` alone, for it comes again. is_spoken:
    whether the request in hand asks for a protocol that takes the connection over; asked once its head is complete.
    """

    def __init__(self, protocol: HttpToolsProtocol, is_spoken: Callable[[], bool]) -> None:
        self._protocol, self._is_spoken = protocol, is_spoken
        self._parser = self._fresh()
        self.ignored_bytes = 0
        """Of fields that were left out of the head in hand."""

    def feed_data(self, data: bytes) -> None:
        """Parse what has come.

        Raises:
            HttpParserError: it is no HTTP/1.1.
            HttpParserUpgrade: at the end of a head that asks for a protocol which is spoken.
        """
        rest = memoryview(data)
        while rest:
            try:
                self._parser.feed_data(rest)
                return
            except HttpParserUpgrade as upgrade:
                if self._is_spoken():
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
        """Whether the head in hand is of a request for another protocol, or of a CONNECT."""
        return self._parser.should_upgrade()

    def _parse_head_again(self) -> None:
        """Without `Upgrade`: names and values are those that were parsed, so no byte of them can be taken for another field."""
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
        )  # as uvicorn does: a request before it is answered
        return parser
