"""`--api-key-file`: a file with one key, alone or in the form of the server's file of keys.

    0123456789abcdef        the key alone
    alice:0123456789abcdef  a line of the server's file: a name, which only the server's log uses, and the key

Empty lines, lines that begin with `#`, and a byte order mark are ignored. Messages never contain a key.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from solo_client.command.errors import Unusable

MAX_BYTES = 1 << 20
NAMED = re.compile(r"[A-Za-z0-9._-]{1,64}:(?P<key>[!-9;-~]{16,512})")
"""The same as in solo_server/http/api_keys.py."""


def read_key(file: Path) -> str:
    """The key.

    Raises:
        Unusable: the file cannot be read, or does not hold exactly one key.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        has_utf16_mark = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if has_utf16_mark else "utf-8-sig")
    except OSError as error:
        raise Unusable(f"--api-key-file: {file} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise Unusable(
            f"--api-key-file: {file} cannot be read: it is not text"
        ) from None  # the error quotes the content
    if len(content) > MAX_BYTES:
        raise Unusable(f"--api-key-file: {file} is larger than {MAX_BYTES} bytes")
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise Unusable(f"--api-key-file: {file} holds no key")
    if len(keys) > 1:
        raise Unusable(f"--api-key-file: {file} holds {len(keys)} keys; it must hold one line: KEY or NAME:KEY")
    named = NAMED.fullmatch(keys[0])
    return named["key"] if named else keys[0]
