"""The image format of some bytes, by their first bytes, never by a file's name."""

from __future__ import annotations

UNKNOWN = "application/octet-stream"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def media_type(body: bytes) -> str:
    """The media type of JPEG, PNG, WebP, AVIF and BMP; of anything else, an empty body included, octet-stream."""
    if body.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if body.startswith(PNG_MAGIC):
        return "image/png"
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "image/webp"
    if _is_avif(body):
        return "image/avif"
    return "image/bmp" if body.startswith(b"BM") else UNKNOWN


def _is_avif(body: bytes) -> bool:
    """An ISO media file whose first box `ftyp` names AVIF as its major or a compatible brand."""
    if body[4:8] != b"ftyp":
        return False
    box = body[: min(int.from_bytes(body[:4], "big"), 256)]
    brands = {box[8:12]} | {box[start : start + 4] for start in range(16, len(box), 4)}
    return not brands.isdisjoint({b"avif", b"avis"})
