"""Reads the bytes of one image from a file or standard input, up to a limit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from solo_client.command.errors import ImageFailed, Unusable, local_problem
from solo_client.command.images import STDIN

MAX_BYTES = 512 << 20  # twice the size of 64 million pixels as 32-bit BMP; the server's own limit is lower
_CHUNK_BYTES = 1 << 20


def check_stdin() -> None:
    """Raises Unusable if standard input is a terminal: an image must be piped in."""
    if sys.stdin is None or sys.stdin.isatty():
        raise Unusable("-: standard input is a terminal; pipe an image into it: ... < photo.jpg")


def read_image(path: Path) -> bytes:
    """The bytes of a file, or of standard input.

    Raises:
        ImageFailed: it cannot be read, or is larger than MAX_BYTES.
    """
    try:
        if path == STDIN:
            return _read(sys.stdin.buffer)
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageFailed(reason, local_problem("unreadable", "File cannot be read", reason)) from error


def _read(stream: BinaryIO) -> bytes:
    """Read in chunks, since a device or a pipe may never end."""
    chunks, size = [], 0
    while chunk := stream.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > MAX_BYTES:
            reason = f"more than {MAX_BYTES >> 20} MiB"
            raise ImageFailed(reason, local_problem("body_too_large", "Body too large", reason))
        chunks.append(chunk)
    return b"".join(chunks)
