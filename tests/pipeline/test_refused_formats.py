"""A file of a format that is not accepted is named in the refusal, which says what to send."""

import pytest
from solo_server.errors import ImageDamaged, UnsupportedMediaType
from solo_server.pipeline.image import ImageLimits, decode, size
from solo_server.pipeline.refused_formats import format_of
from support.images import encoded, smooth_image

PIXELS = smooth_image(40, 60)


def _container(*brands: bytes) -> bytes:
    box = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (len(box) + 4).to_bytes(4, "big") + box + b"\0\0\0\x08mdat" + bytes(100)


FOREIGN = {
    "TIFF": [encoded(PIXELS, "TIFF"), encoded(PIXELS, "TIFF", big_tiff=True), b"MM\0*\0\0\0\x08", b"MM\0+\0\x08\0\0"],
    "GIF": [encoded(PIXELS, "GIF"), b"GIF87a"],
    "ICO": [encoded(PIXELS, "ICO")],
    "PDF": [encoded(PIXELS, "PDF")],
    "JPEG 2000": [encoded(PIXELS, "JPEG2000"), encoded(PIXELS, "JPEG2000", no_jp2=True)],
    "JPEG XL": [b"\xff\x0a\xfa\x1f", b"\0\0\0\x0cJXL \r\n\x87\n"],
    "HEIC": [_container(b"heic", b"mif1"), _container(b"mif1", b"mif1", b"heic"), _container(b"msf1", b"hevc")],
    "MP4 or QuickTime video": [_container(b"isom", b"mp41"), _container(b"qt  ")],
    "SVG": [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg width='1'>",
    ],
    "HTML": [b"<!DOCTYPE html><html></html>", b"\n<html>"],
    "Netpbm": [encoded(PIXELS, "PPM")],
    "NumPy": [b"\x93NUMPY\x01\0"],
    "JPEG as base64 text": [b"/9j/4AAQSkZJRgABAQAAAQ"],
    "PNG as base64 text": [b"iVBORw0KGgoAAAANSUhEUg"],
    "base64 text": [b"data:image/png;base64,iVBORw0KGgo"],
}


@pytest.mark.parametrize(("kind", "body"), [(kind, body) for kind, bodies in FOREIGN.items() for body in bodies])
def test_a_format_that_is_not_accepted_is_named(kind: str, body: bytes) -> None:
    for read in (decode, size):
        with pytest.raises(UnsupportedMediaType) as refused:
            read(body, ImageLimits())
        assert refused.value.detail == f"{kind} is not accepted; send JPEG, PNG, WebP, AVIF or BMP"


@pytest.mark.parametrize("body", [b"this is text", b"\0" * 40, b"{}", b"<", b"<note>no image</note>"])
def test_other_bytes_are_reported_as_no_supported_image(body: bytes) -> None:
    with pytest.raises(UnsupportedMediaType) as refused:
        decode(body, ImageLimits())
    assert refused.value.detail == "not a supported image; send JPEG, PNG, WebP, AVIF or BMP"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "BMP"])
def test_an_accepted_format_is_not_foreign_and_is_damaged_if_it_cannot_be_read(kind: str) -> None:
    body = encoded(PIXELS, kind)
    assert format_of(body) is None
    if kind != "BMP":  # its two letters could be text
        with pytest.raises(ImageDamaged):
            decode(body[:13], ImageLimits())
