"""One HTTP response that the server receives, as an image by URL: parsed and bounded while it arrives."""

from __future__ import annotations

from httptools import HttpResponseParser

from solo_server.errors import BodyTooLarge, UrlUnreachable

MAX_FRAMING_BYTES = 64 << 10
"""Headers, chunk sizes and trailers together, and once more the size of the body."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class UrlResponse:
    """Takes the bytes of a connection. is_complete: nothing more is to be read; redirect: its target, if it is one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parser = HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._size_bytes = self._fed_bytes = 0
        self._has_headers = False
        self.is_complete = False
        self.redirect: str | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection; none are its end.

        Raises:
            BodyTooLarge: more than `max_bytes`, by the header or received.
            UrlUnreachable: the response is none of an image, or ends too early.
            HttpParserError, HttpParserUpgrade: it is no HTTP.
        """
        if not data:
            self._end()
            return
        self._fed_bytes += len(data)
        self._parser.feed_data(data)
        if self._size_bytes > self._max_bytes:
            raise BodyTooLarge(f"the image at the URL has more than {self._max_bytes} bytes")
        if self._fed_bytes > MAX_FRAMING_BYTES + 2 * self._size_bytes:
            raise UrlUnreachable("the answer of the URL has endless headers")
        if self._has_headers:
            self._check_headers()

    def content(self) -> bytes:
        """The body.

        Raises:
            UrlUnreachable: it is empty.
        """
        if not self._chunks:
            raise UrlUnreachable("the answer of the URL is empty")
        return b"".join(self._chunks)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. Of a repeated header the last one counts."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._has_headers = not self._is_interim

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._size_bytes += len(body)
        if self._size_bytes <= self._max_bytes:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._is_interim:
            self._headers.clear()
        else:
            self.is_complete = True

    @property
    def _is_interim(self) -> bool:
        return 100 <= self._parser.get_status_code() < 200

    def _check_headers(self) -> None:
        status = self._parser.get_status_code()
        location = self._headers.get(b"location")
        if status in _REDIRECTS and location is not None:
            self.redirect, self.is_complete = location.decode("latin-1"), True
        elif status != 200:
            raise UrlUnreachable(f"the URL is answered with status {status}")
        elif self._headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise UrlUnreachable("the answer of the URL is compressed, although that was not asked for")
        length = self._headers.get(b"content-length", b"")
        if self.redirect is None and length.isdigit() and int(length) > self._max_bytes:
            raise BodyTooLarge(
                f"the image at the URL has {length.decode()} bytes; at most {self._max_bytes} are accepted"
            )

    def _end(self) -> None:
        is_framed = b"content-length" in self._headers or b"transfer-encoding" in self._headers
        if not self._has_headers or is_framed:
            raise UrlUnreachable("the answer of the URL ends too early")
        self.is_complete = True
