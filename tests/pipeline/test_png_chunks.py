"""Metadata of a PNG cannot make it invalid: pixels are OpenCV's. Chunks that the pixels need are checked strictly."""

import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from solo_server.errors import ImageDamaged, ImageTooLarge
from solo_server.pipeline.image import ImageLimits, decode, size
from solo_server.pipeline.png_chunks import MOST_CHUNKS, SIGNATURE, pixel_chunks
from support.images import encoded, smooth_image

LIMITS = ImageLimits()
PIXELS = smooth_image(40, 60)
PLAIN = encoded(PIXELS)
COMPRESSED_40_MB = zlib.compress(bytes(40_000_000), 9)
EXIF = Image.Exif()
EXIF[0x0112] = 6
TIFF = EXIF.tobytes()[6:]


def _chunk(name: bytes, content: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content) ^ wrong)


def _with(*chunks: bytes, before: bytes = b"IDAT", body: bytes = PLAIN) -> bytes:
    at = body.index(before) - 4
    return body[:at] + b"".join(chunks) + body[at:]


def _opencv(body: bytes) -> np.ndarray | None:
    pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else pixels[:, :, ::-1]


ODDITIES = {
    "compressed text of 40 MB": _chunk(b"zTXt", b"Comment\0\0" + COMPRESSED_40_MB),
    "compressed international text of 40 MB": _chunk(b"iTXt", b"Comment\0\1\0\0\0" + COMPRESSED_40_MB),
    "a compressed profile of 40 MB": _chunk(b"iCCP", b"sRGB\0\0" + COMPRESSED_40_MB),
    "text of 100 MB in pieces": _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1_000_000), 9)) * 100,
    "a profile that is not compressed as it says": _chunk(b"iCCP", b"sRGB\0\1not deflate"),
    "text that is not compressed": _chunk(b"zTXt", b"Comment\0\0not deflate"),
    "a wrong checksum of pHYs": _chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1), wrong=1),
    "a wrong checksum of text": _chunk(b"tEXt", b"Comment\0text", wrong=1),
    "a wrong checksum of tRNS": _chunk(b"tRNS", bytes(6), wrong=1),
    "a wrong checksum of a palette that is a suggestion": _chunk(b"PLTE", bytes(9), wrong=1),
    "a wrong checksum of an unknown chunk": _chunk(b"xyZz", b"what", wrong=1),
    "chunks that are too short": _chunk(b"gAMA", b"1")
    + _chunk(b"cHRM", b"1")
    + _chunk(b"sRGB", b"")
    + _chunk(b"pHYs", b""),
    "text that is not text": _chunk(b"tEXt", b"\xff" * 30) + _chunk(b"iTXt", b"\xff" * 30),
}


@pytest.mark.parametrize("oddity", ODDITIES)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_metadata_is_ignored_and_pixels_are_opencvs(oddity: str, before: bytes) -> None:
    body = _with(ODDITIES[oddity], before=before)
    np.testing.assert_array_equal(decode(body, LIMITS), PIXELS)
    reference = _opencv(body)
    assert reference is not None
    np.testing.assert_array_equal(reference, PIXELS)
    assert size(body, LIMITS) == (40, 60)


@pytest.mark.parametrize(
    "name", ["compressed text of 40 MB", "a compressed profile of 40 MB", "text of 100 MB in pieces"]
)
def test_metadata_takes_no_memory_but_that_of_the_body(name: str) -> None:
    body = _with(ODDITIES[name])
    decode(body, LIMITS)
    tracemalloc.start()
    try:
        decode(body, LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(body) + 200_000
    finally:
        tracemalloc.stop()


def test_a_png_without_metadata_is_not_copied() -> None:
    assert pixel_chunks(PLAIN) is PLAIN


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_colour_mode_is_decoded_as_opencv_does_with_and_without_its_metadata(mode: str) -> None:
    image = Image.fromarray(PIXELS).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray((np.asarray(image, np.uint16) << 8) + 77)
    body = _saved(image)
    if mode in ("P", "L", "RGB"):
        body = _with(_chunk(b"tRNS", bytes({"P": 3, "L": 2, "RGB": 6}[mode])), body=body)
    body = _with(_chunk(b"gAMA", struct.pack(">I", 100_000)), _chunk(b"sBIT", b"\5\5\5"), body=body, before=b"IDAT")
    reference = _opencv(body)
    assert reference is not None
    np.testing.assert_array_equal(decode(body, LIMITS), reference)


def _saved(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", dpi=(72, 72))
    return buffer.getvalue()


def _flipped(name: bytes, offset: int) -> bytes:
    """PLAIN with one bit flipped, at `offset` from the start of a chunk's name."""
    at = PLAIN.index(name) + offset
    return PLAIN[:at] + bytes([PLAIN[at] ^ 1]) + PLAIN[at + 1 :]


def _without_palette() -> bytes:
    """An indexed image without its palette."""
    body = _saved(Image.fromarray(PIXELS).convert("P"))
    at = body.index(b"PLTE") - 4
    return body[:at] + body[body.index(b"IDAT") - 4 :]


@pytest.mark.parametrize(
    "body",
    [
        _flipped(b"IHDR", 20),  # its checksum
        _flipped(b"IDAT", -1),  # its length
        _flipped(b"IDAT", 0),  # its name
        _flipped(b"IDAT", 40),  # its content
        _flipped(b"IEND", -5),  # its checksum
        _with(_chunk(b"PLTE", bytes(768), wrong=1), body=_without_palette()),
        _without_palette(),
        _with(_chunk(b"XYZW", b"critical, and unknown", wrong=1)),
        PLAIN[:-30],
        PLAIN[:40],
        PLAIN[:20],
        SIGNATURE,
        SIGNATURE + b"IHDR",
        PLAIN.replace(b"\r\n", b"\n"),  # as text
        _with(
            _chunk(b"IHDR", struct.pack(">IIBBBBB", 60, 40, 3, 7, 0, 0, 0)), body=PLAIN[:8] + PLAIN[33:]
        ),  # no such colour
    ],
)
def test_a_png_whose_critical_chunks_are_wrong_is_damaged(body: bytes) -> None:
    with pytest.raises(ImageDamaged) as refused:
        decode(body, LIMITS)
    assert "accepted" not in refused.value.detail
    assert _opencv(body) is None


def test_limits_hold_before_metadata_and_pixels() -> None:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 65_536, 65_536, 8, 2, 0, 0, 0))
    body = SIGNATURE + header + ODDITIES["compressed text of 40 MB"] + _chunk(b"IDAT", zlib.compress(bytes(100)))
    for read in (decode, size):
        with pytest.raises(ImageTooLarge):
            read(body, LIMITS)


def test_endless_chunks_are_refused() -> None:
    body = _with(_chunk(b"tEXt", b"a\0b") * (MOST_CHUNKS - 2))
    with pytest.raises(ImageDamaged, match=f"more than {MOST_CHUNKS} chunks"):
        decode(body, LIMITS)
    np.testing.assert_array_equal(decode(_with(_chunk(b"tEXt", b"a\0b") * (MOST_CHUNKS - 3)), LIMITS), PIXELS)


def test_a_broken_animation_is_ignored() -> None:
    body = _with(_chunk(b"acTL", b"") + _chunk(b"fcTL", bytes(26)) + _chunk(b"fcTL", b"\xff" * 26))
    np.testing.assert_array_equal(decode(body, LIMITS), PIXELS)


@pytest.mark.parametrize("body", [_flipped(b"IEND", 5), PLAIN[:-4], PLAIN[:-12]])
def test_a_damaged_or_missing_end_chunk_is_ignored(body: bytes) -> None:
    np.testing.assert_array_equal(decode(body, LIMITS), PIXELS)


def test_the_default_image_of_an_animation_is_decoded() -> None:
    frames = [
        Image.fromarray(PIXELS),
        Image.fromarray(smooth_image(40, 60, 1)),
        Image.fromarray(smooth_image(40, 60, 2)),
    ]
    body = encoded(PIXELS, save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(body, LIMITS), PIXELS)
    reference = _opencv(body)
    assert reference is not None
    np.testing.assert_array_equal(reference, PIXELS)
