"""Text of files that people write: editors save it with or without a byte order mark."""

from __future__ import annotations

import codecs


def decoded(content: bytes) -> str:
    """UTF-8, or UTF-16 where a byte order mark says so (Windows: "Unicode"; PowerShell's `>`); without the mark.

    Raises:
        UnicodeDecodeError: neither UTF-8 nor marked UTF-16.
    """
    has_utf16_mark = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if has_utf16_mark else "utf-8-sig")
