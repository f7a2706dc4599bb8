"""The parts of a `multipart/form-data` body: files, and fields, which are parameters.

A part is a file if it has a file name (`filename`, or only `filename*`) or the `Content-Type` of an image. A file without name and
bytes is ignored: browsers send it for an empty file input.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from urllib.parse import unquote

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from solo_server.errors import EmptyBody, InvalidQuery

MEDIA_TYPE = "multipart/form-data"
MAX_FIELDS = 256
MAX_FIELD_BYTES = 16 << 10
"""Limit for all fields together, the same as for a query string."""

File = tuple[str, bytes]
"""File name and bytes."""

_TOO_MANY = "too many files in the form; at most {} are accepted at a time"
_QUOTED = re.compile(rb'"(?:\\.|[^"\\])*"')
_EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=\s*([^;\s]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Form:
    """A parsed form. files: at least one; fields: names and values. Both are in the order of the body."""

    files: list[File]
    fields: list[tuple[str, str]]


def is_form(content_type: str) -> bool:
    """Whether a body of this media type is a form."""
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


async def parse_form(headers: Headers, body: bytes, max_files: int) -> Form:
    """Parse the form of a request. headers: of the request; they contain the boundary.

    Raises:
        InvalidQuery: the form is malformed, or has too many files or fields, or fields that are too large.
        EmptyBody: no file.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = _Parser(headers, stream(), max_files=math.inf, max_fields=MAX_FIELDS)
        parser.max_form_files = max_files
        parser.spool_max_size = len(body) + 1  # the body is in memory and limited already; nothing goes to disk
        parts = await parser.parse()
    except MultiPartException as problem:
        raise InvalidQuery(f"the multipart body cannot be read: {problem.message}") from problem
    except KeyError as problem:
        raise InvalidQuery("the multipart body cannot be read: the boundary is missing") from problem
    named = [(v.filename or "", await v.read()) for _, v in parts.multi_items() if isinstance(v, UploadFile)]
    fields = [(name, value) for name, value in parts.multi_items() if isinstance(value, str)]
    await parts.close()
    files = [(name, content) for name, content in named if name or content]
    if not files:
        raise EmptyBody("no file in the multipart body; a file needs a file name, as in `curl -F file=@FILE`")
    if len(files) > max_files:
        raise InvalidQuery(_TOO_MANY.format(max_files))
    return Form(files, fields)


class _Parser(MultiPartParser):
    """Starlette's parser, extended: that takes a part as a file only if it has `filename`."""

    max_form_files = 0
    _field_bytes = 0

    def on_headers_finished(self) -> None:
        """Give a file name to files without one."""
        part = self._current_part
        disposition = part.content_disposition or b""
        if b"filename" not in parse_options_header(disposition)[1]:
            extended = _EXTENDED_NAME.search(_QUOTED.sub(b'""', disposition))
            if extended or _is_image(dict(part.item_headers).get(b"content-type", b"")):
                name = _decoded(extended[1]) if extended else ""
                part.content_disposition = disposition + b'; filename="%s"' % name.encode(self._charset, "replace")
        super().on_headers_finished()
        if self._current_files > 2 * self.max_form_files:  # up to half may be empty file inputs
            raise MultiPartException(_TOO_MANY.format(self.max_form_files))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Limit the size of the fields."""
        part = self._current_part
        if part.file is None:
            self._field_bytes += end - start
        if self._field_bytes > MAX_FIELD_BYTES:
            message = f"the fields are larger than {MAX_FIELD_BYTES} bytes at {part.field_name[:60]!r}"
            raise MultiPartException(f"{message}; a file needs a file name")
        super().on_part_data(data, start, end)


def _is_image(content_type: bytes) -> bool:
    return content_type.strip().lower().startswith((b"image/", b"application/octet-stream"))


def _decoded(extended: bytes) -> str:
    """Decode a file name by RFC 8187: `UTF-8''na%C3%AFve.png`. Characters that would end a quoted string are replaced."""
    charset, _, encoded = extended.decode("latin-1").strip('"').rpartition("'")
    try:
        name = unquote(encoded, charset.partition("'")[0] or "utf-8", "replace")
    except LookupError:  # unknown character set
        name = unquote(encoded)
    return re.sub(r'["\\\x00-\x1f]', "_", name)
