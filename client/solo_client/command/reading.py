"""Reads the bytes of one image from a file or standard input, up to a limit; says whether standard input is a video."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, BinaryIO

from solo_client.command.errors import ImageFailed, Unusable, local_problem
from solo_client.command.images import ImagePath, Readable
from solo_client.command.video.signature import HEAD_BYTES, is_mp4, is_video

MAX_BYTES = 512 << 20  # twice the size of 64 million pixels as 32-bit BMP; the server's own limit is lower
_CHUNK_BYTES = 1 << 20


class HeadFirst:
    """A stream whose first bytes have been read already, as a file object that cannot seek."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int) -> bytes:
        """At most `size` bytes, at least one before the end."""
        if self._head:
            part, self._head = self._head[:size], self._head[size:]
            return part
        return self._stream.read(size)


def open_stdin(image: ImagePath, opened: ExitStack) -> ImagePath:
    """The input `-` with its stream; its first bytes say whether it is a video. opened: closes the stream.

    Raises:
        Unusable: standard input is a terminal, or cannot be read.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise Unusable("-: standard input is a terminal; pipe an image into it: ... < photo.jpg")
    try:
        head = sys.stdin.buffer.read(HEAD_BYTES)
    except OSError as error:
        raise Unusable(f"-: {error.strerror}") from error
    stream = HeadFirst(head, sys.stdin.buffer)
    return replace(image, is_video=is_video(head), stream=_seekable(stream, opened) if is_mp4(head) else stream)


def read_image(path: Path, stream: Readable | None = None) -> bytes:
    """The bytes of a file, or of `stream`.

    Raises:
        ImageFailed: it cannot be read, or is larger than MAX_BYTES.
    """
    try:
        if stream is not None:
            return _read(stream)
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageFailed(reason, local_problem("unreadable", "File cannot be read", reason)) from error


def _seekable(stream: HeadFirst, opened: ExitStack) -> IO[bytes]:
    """A copy in a temporary file: the index of an MP4 can be at its end.

    Raises:
        Unusable: it cannot be read, or there is no room for it.
    """
    try:
        file = opened.enter_context(TemporaryFile())  # noqa: SIM115  # it is one
        while chunk := stream.read(_CHUNK_BYTES):
            file.write(chunk)
        file.seek(0)
    except OSError as error:
        raise Unusable(f"-: cannot copy an MP4 from standard input to a temporary file: {error.strerror}") from error
    return file


def _read(stream: Readable) -> bytes:
    """Read in chunks, since a device or a pipe may never end."""
    chunks, size = [], 0
    while chunk := stream.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > MAX_BYTES:
            reason = f"more than {MAX_BYTES >> 20} MiB"
            raise ImageFailed(reason, local_problem("body_too_large", "Body too large", reason))
        chunks.append(chunk)
    return b"".join(chunks)
