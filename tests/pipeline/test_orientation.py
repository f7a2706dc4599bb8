"""An image is rotated by EXIF only, and an AVIF by its own rotation; what OpenCV and browsers ignore is ignored here."""

import struct
import tracemalloc
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from solo_models.spec import PreprocessSpec
from solo_server.pipeline.image import ImageLimits, decode, decode_draft, peek_size, size
from support.images import encoded, smooth_image

LIMITS = ImageLimits()
SPEC = PreprocessSpec(long_side=96, short_side=64)
PIXELS = smooth_image(300, 420)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
OPTIONS = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}, "AVIF": {"quality": 90}}


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    return exif


def _png_with(
    name: bytes, content: bytes, *, before: bytes = b"IDAT", body: bytes | None = None, wrong: int = 0
) -> bytes:
    body = body or encoded(PIXELS)
    at = body.index(before) - 4
    checksum = zlib.crc32(name + content) ^ wrong
    return body[:at] + struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum) + body[at:]


def _xmp_only(kind: str) -> bytes:
    if kind == "PNG":
        return _png_with(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    return encoded(PIXELS, kind, xmp=XMP, **OPTIONS[kind])


def _check_as_opencv(body: bytes) -> None:
    reference = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    upright = decode(body, LIMITS)
    assert upright.shape == reference.shape
    assert np.abs(upright.astype(int) - reference).max() <= 1


@pytest.mark.parametrize("kind", OPTIONS)
def test_orientation_in_xmp_alone_is_ignored(kind: str) -> None:
    body = _xmp_only(kind)
    assert b'tiff:Orientation="6"' in body
    _check_as_opencv(body)
    assert decode(body, LIMITS).shape == (*size(body, LIMITS), 3) == PIXELS.shape
    assert peek_size(body, LIMITS) in (None, (300, 420))
    drafted, full_hw = decode_draft(body, LIMITS, SPEC)
    assert full_hw == (300, 420)
    assert drafted.shape == ((150, 210, 3) if kind == "JPEG" else PIXELS.shape)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_exif_is_applied_as_opencv_does(kind: str, orientation: int) -> None:
    _check_as_opencv(encoded(PIXELS, kind, exif=_exif(orientation), **OPTIONS[kind]))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_xmp_beside_exif_changes_nothing(kind: str) -> None:
    for orientation in (1, 3):
        body = encoded(PIXELS, kind, exif=_exif(orientation), xmp=XMP, **OPTIONS[kind])
        _check_as_opencv(body)
        assert decode(body, LIMITS).shape == PIXELS.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_rotated_by_its_own_rotation(orientation: int) -> None:
    """Pillow writes orientation as `irot` and `imir`, which are part of the image and which every browser applies."""
    body = encoded(PIXELS, "AVIF", exif=_exif(orientation), **OPTIONS["AVIF"])
    assert (b"irot" in body or b"imir" in body) == (orientation != 1)
    exif = encoded(PIXELS, "PNG", exif=_exif(orientation))
    assert np.abs(decode(body, LIMITS).astype(int) - decode(exif, LIMITS)).mean() < 3
    drafted, full_hw = decode_draft(body, LIMITS, SPEC)
    assert drafted.shape[:2] == full_hw == ((420, 300) if orientation >= 5 else (300, 420))


def test_exif_orientation_of_an_avif_is_ignored() -> None:
    """MIAF (ISO/IEC 23000-22, 7.3.10.1): EXIF orientation is not for display. OpenCV applies it, browsers do not."""
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    done, body = cv2.imencodeWithMetadata(".avif", PIXELS, [cv2.IMAGE_METADATA_EXIF], [np.frombuffer(tiff, np.uint8)])
    assert done
    rotated = bytes(body)
    if b"irot" in rotated:  # libavif derives it from EXIF: remove it
        at = rotated.index(b"irot") + 4
        rotated = rotated[:at] + b"\0" + rotated[at + 1 :]
    assert tiff in rotated
    assert decode(rotated, LIMITS).shape == PIXELS.shape


TIFF = _exif(6).tobytes()[6:]
RAW_PROFILE = b"\nexif\n 66\n" + (b"Exif\0\0" + TIFF).hex().encode()  # as ImageMagick writes it
OTHER_TIFF = _exif(3).tobytes()[6:]


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (_png_with(b"eXIf", TIFF, before=b"IEND"), (420, 300, 3)),
        (_png_with(b"eXIf", OTHER_TIFF, before=b"IEND", body=_png_with(b"eXIf", TIFF)), (420, 300, 3)),
        (_png_with(b"eXIf", TIFF, wrong=1), (300, 420, 3)),
        (_png_with(b"eXIf", b"Exif\0\0" + TIFF), (300, 420, 3)),
        (_png_with(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(RAW_PROFILE)), (300, 420, 3)),
    ],
    ids=["after the pixels", "the first of two", "wrong checksum", "not as specified", "as text"],
)
def test_a_png_is_rotated_by_its_first_intact_exif_chunk(body: bytes, shape: tuple[int, ...]) -> None:
    _check_as_opencv(body)
    assert decode(body, LIMITS).shape == shape


def _overlapping_tags(tags: int, size_bytes: int) -> bytes:
    """EXIF data in which the value of each tag is all of the data."""
    entries = b"".join(struct.pack("<HHII", 1000 + tag, 1, size_bytes - 12 * tags - 20, 8) for tag in range(tags))
    head = b"II*\0" + struct.pack("<IH", 8, tags) + entries + bytes(4)
    return head + bytes(size_bytes - len(head))


@pytest.mark.parametrize("kind", OPTIONS)
def test_tags_that_overlap_take_no_more_memory_than_the_file(kind: str) -> None:
    """Pillow before 13.0 took 8 GB for such a file of 2 MB."""
    exif = _overlapping_tags(400, 400_000)
    if kind == "JPEG":
        pieces = [b"Exif\0\0" + exif[at : at + 60_000] for at in range(0, len(exif), 60_000)]
        body = encoded(PIXELS, kind)
        tables = body.index(b"\xff\xdb")  # without JFIF Pillow looks for the resolution in EXIF when it opens the file
        body = body[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(p) + 2) + p for p in pieces) + body[tables:]
    elif kind == "PNG":
        body = _png_with(b"eXIf", exif)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of the tags
            body = encoded(PIXELS, kind, exif=exif)
    assert exif[-1000:] in body
    decode(body, LIMITS)
    tracemalloc.start()
    try:
        assert decode(body, LIMITS).shape == PIXELS.shape
        assert tracemalloc.get_traced_memory()[1] < 8 * len(body) + 4 * PIXELS.size
    finally:
        tracemalloc.stop()
