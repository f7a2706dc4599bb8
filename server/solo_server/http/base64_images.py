"""Images in base64, alone or in a `data:` URI. The limit for bodies bounds them: they take three quarters of their text."""

from __future__ import annotations

import base64
import binascii

from solo_server.errors import InvalidQuery

DATA_URI = "data:"
_MARK = ";base64"


def decode_base64(text: str, field: str) -> bytes:
    """The bytes of base64 text, which may stand in a `data:` URI and may have line breaks. field: for errors.

    Raises:
        InvalidQuery: no base64, or a `data:` URI of another encoding.
    """
    if text.startswith(DATA_URI):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(_MARK):
            raise InvalidQuery(f"{field}: a data: URI must have its image in base64")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as problem:
        raise InvalidQuery(f"{field}: is not valid base64") from problem
