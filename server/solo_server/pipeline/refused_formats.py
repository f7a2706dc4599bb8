"""The format of a file by its first bytes, for error messages about formats that are not accepted."""

from __future__ import annotations

import re

_BEGINNINGS: tuple[tuple[str, bytes], ...] = (
    ("TIFF", b"II*\0"),
    ("TIFF", b"MM\0*"),
    ("TIFF", b"II+\0"),
    ("TIFF", b"MM\0+"),
    ("GIF", b"GIF8"),
    ("PDF", b"%PDF-"),
    ("ICO", b"\0\0\1\0"),
    ("JPEG XL", b"\xff\x0a"),
    ("JPEG XL", b"\0\0\0\x0cJXL "),
    ("JPEG 2000", b"\0\0\0\x0cjP  "),
    ("JPEG 2000", b"\xff\x4f\xff\x51"),
    ("Photoshop", b"8BPS"),
    ("OpenEXR", b"v/1\x01"),
    ("Netpbm", b"P4\n"),
    ("Netpbm", b"P5\n"),
    ("Netpbm", b"P6\n"),
    ("Matroska or WebM video", b"\x1aE\xdf\xa3"),
    ("ZIP", b"PK\x03\x04"),
    ("gzip", b"\x1f\x8b"),
    ("NumPy", b"\x93NUMPY"),
    ("JPEG as base64 text", b"/9j/"),
    ("PNG as base64 text", b"iVBORw0KGgo"),
    ("base64 text", b"data:image/"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_MOST_BRANDS = 16
_TEXT_BYTES = 1024  # where the first element of a text file is looked for
_FIRST_ELEMENT = re.compile(rb"<(svg|html|!doctype html)[\s>]", re.IGNORECASE)


def format_of(body: bytes) -> str | None:
    """The name of a known format that is not decoded here; `None` if the first bytes match none."""
    for name, beginning in _BEGINNINGS:
        if body.startswith(beginning):
            return name
    if body[4:8] == b"ftyp":
        return _format_of_container(body)
    return _format_of_text(body[:_TEXT_BYTES])


def _format_of_container(body: bytes) -> str | None:
    """The format of an ISO base media file, by the major and the compatible brands in its first box."""
    end = min(int.from_bytes(body[:4]), 16 + 4 * _MOST_BRANDS)
    brands = [body[at : at + 4] for at in (8, *range(16, end, 4))]
    if any(brand in _HEIF_BRANDS for brand in brands):
        return "HEIC"
    return None if brands[0] in (b"avif", b"avis", b"mif1", b"msf1") else "MP4 or QuickTime video"


def _format_of_text(beginning: bytes) -> str | None:
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    element = _FIRST_ELEMENT.search(text) if text.startswith(b"<") else None
    if element is None:
        return None
    return "SVG" if element[1].lower() == b"svg" else "HTML"
