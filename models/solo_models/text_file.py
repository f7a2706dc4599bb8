"""Text of files that people write, in whatever their editor makes of it: with a byte order mark or without."""

from __future__ import annotations

import codecs


def decoded(content: bytes) -> str:
    """UTF-8, or UTF-16 where a byte order mark says so (Windows: "Unicode"; PowerShell's `>`); the mark is no part of the text.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    has_utf16_mark = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if has_utf16_mark else "utf-8-sig")
