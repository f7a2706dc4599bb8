"""The chunks of a PNG that its pixels and its orientation need; all other metadata is ignored, unread and not decompressed.

Pillow reads every chunk: it refuses an image for a wrong checksum of a comment, or for large compressed text or profiles. libpng,
and OpenCV with it, ignores such chunks. Chunks: PNG specification (third edition), section 5.
"""

from __future__ import annotations

import struct
import zlib

from solo_server.errors import ImageDamaged

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_CHUNKS = 100_000  # enough for 100 MB of pixel data in pieces of 1 KiB
_COLOUR_TYPE_AT, _INDEXED = 25, b"\x03"  # in the header, the first chunk
_FRAME_BYTES = 12  # bytes of a chunk beside its content: length, name, checksum


def pixel_chunks(body: bytes) -> bytes:
    """`body` without its ancillary chunks, except the first intact `eXIf`; `body` itself if there is nothing to leave out.

    Bytes after a truncated chunk or the end chunk are kept as they are, for the decoder to judge.

    Raises:
        ImageDamaged: the checksum of a critical chunk is wrong, the palette of an indexed image is missing, or there are more than
            `MOST_CHUNKS` chunks.
    """
    kept: list[tuple[int, int]] = []
    at, start, oriented = len(SIGNATURE), 0, False
    indexed = body[_COLOUR_TYPE_AT : _COLOUR_TYPE_AT + 1] == _INDEXED
    coloured = not indexed
    for _ in range(MOST_CHUNKS):
        if at + 8 > len(body):
            break
        length, name = struct.unpack_from(">I4s", body, at)
        end = at + _FRAME_BYTES + length
        if end > len(body) or name == b"IEND":
            break
        if _is_critical(name, indexed):
            coloured = coloured or name == b"PLTE"
            _check(body, at, end, name, coloured)
        elif name == b"eXIf" and not oriented and _is_orientation(body, at, end):
            oriented = True
        else:
            kept.append((start, at))
            start = end
        at = end
    else:
        raise ImageDamaged(f"the PNG has more than {MOST_CHUNKS} chunks")
    view = memoryview(body)
    return b"".join(view[a:b] for a, b in [*kept, (start, len(body))]) if kept else body


def _is_critical(name: bytes, indexed: bool) -> bool:
    """Names of critical chunks begin in upper case: section 5.4. Unless colours are indices, a palette is a suggestion: 11.2.2."""
    return not name[0] & 0x20 and (indexed or name != b"PLTE")


def _check(body: bytes, at: int, end: int, name: bytes, coloured: bool) -> None:
    if not _is_intact(body, at, end):
        raise ImageDamaged(
            f"the PNG is damaged: wrong checksum of its chunk {name.decode('ascii', 'backslashreplace')}"
        )
    if name == b"IDAT" and not coloured:
        raise ImageDamaged("the PNG is damaged: its palette is missing")


def _is_orientation(body: bytes, at: int, end: int) -> bool:
    """Whether the content is EXIF: section 11.3.4.5; libpng ignores a chunk with any other beginning."""
    return body[at + 8 : at + 10] in (b"II", b"MM") and _is_intact(body, at, end)


def _is_intact(body: bytes, at: int, end: int) -> bool:
    checksum = int.from_bytes(body[end - 4 : end])
    return zlib.crc32(memoryview(body)[at + 4 : end - 4]) == checksum
