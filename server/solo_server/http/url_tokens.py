"""`SOLO_IMAGE_URLS_TOKEN_FILE`: the header `Authorization` for hosts of images that need one, such as Label Studio.

    # one a line: a URL prefix, a space, and the value of the header
    http://10.0.0.5:8080/ Token 0123456789abcdef

Only requests below the prefix get the header, so a redirect elsewhere does not have it. Errors and `repr` never have a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from solo_server.errors import SettingsError
from solo_server.http.secret_file import read_lines
from solo_server.http.url_rules import WebUrl, parse_prefix


@dataclass(frozen=True, slots=True)
class UrlToken:
    """authorization: the value of the header."""

    prefix: WebUrl
    authorization: str = field(repr=False)


def read_tokens(file: Path | None) -> tuple[UrlToken, ...]:
    """The lines of the file, which is read once, at the start; none without a file.

    Raises:
        SettingsError: it cannot be read, or a line is invalid; names the line, never the value.
    """
    if file is None:
        return ()
    try:
        lines = enumerate((line.strip() for line in read_lines(file)), 1)
        return tuple(_parse(number, line) for number, line in lines if line and not line.startswith("#"))
    except ValueError as problem:
        raise SettingsError(f"SOLO_IMAGE_URLS_TOKEN_FILE: {file}: {problem}") from None


def authorization(tokens: Sequence[UrlToken], url: WebUrl) -> str | None:
    """The value for a URL: that of the longest prefix; `None` if there is none."""
    fitting = [token for token in tokens if token.prefix.is_prefix_of(url)]
    return max(fitting, key=lambda token: len(token.prefix.path)).authorization if fitting else None


def _parse(number: int, line: str) -> UrlToken:
    prefix, _, value = line.partition(" ")
    value = value.strip()
    if not value or not value.isascii() or not value.isprintable():
        raise ValueError(
            f"line {number}: a URL prefix, a space and the value of the header Authorization are needed, in ASCII"
        )
    try:
        return UrlToken(parse_prefix(prefix), value)
    except ValueError:
        raise ValueError(
            f"line {number}: does not begin with a URL prefix such as https://images.example.org/photos/"
        ) from None
