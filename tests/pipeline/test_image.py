"""Images of accepted formats become upright RGB; everything else is refused with its own code, before memory is allocated."""

import contextlib
import io
import random
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from solo_models.spec import PreprocessSpec
from solo_server.errors import EmptyBody, ImageDamaged, ImageTooLarge, RequestError, ServerError, UnsupportedMediaType
from solo_server.pipeline.image import ImageLimits, decode, peek_size, plan, prepare, size
from support.images import encoded, smooth_image
from support.paths import IMAGES

LIMITS = ImageLimits()
PIXELS = smooth_image(40, 60)


def _png(width: int, height: int, bits: int = 8, kind: int = 2, **chunks: bytes) -> bytes:
    """A PNG whose header says `width` x `height` pixels, with hardly any data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    further = b"".join(chunk(name.encode(), content) for name, content in chunks.items())
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + further + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "AVIF", "JPEG"])
def test_accepted_formats_decode(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind in ("JPEG", "AVIF") else {}
    difference = decode(encoded(PIXELS, kind, **options), LIMITS).astype(int) - PIXELS
    assert abs(difference).mean() < (6 if kind in ("JPEG", "AVIF") else 1e-9)


def test_jpeg_decodes_as_opencv_does() -> None:
    body = encoded(smooth_image(97, 131), "JPEG", quality=85)
    reference = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert np.abs(decode(body, LIMITS).astype(int) - reference).max() <= 1


def test_broken_exif_does_not_matter() -> None:
    body = encoded(PIXELS, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 40)
    assert decode(body, LIMITS).shape == PIXELS.shape


_OPTIONS: dict[str, dict[str, Any]] = {"1": {"dither": Image.Dither.NONE}, "P": {"palette": Image.Palette.ADAPTIVE}}


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 9), 0x8000, np.uint16))
    else:
        image = Image.fromarray(np.full((8, 9, 3), 128, np.uint8)).convert(mode, **_OPTIONS.get(mode, {}))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    rgb = decode(buffer.getvalue(), LIMITS)
    assert rgb.shape == (8, 9, 3)
    assert rgb.dtype == np.uint8
    assert mode == "1" or abs(int(rgb[0, 0, 0]) - 128) <= 3


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", EmptyBody),
        (b"this is text", UnsupportedMediaType),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedMediaType),
        (encoded(PIXELS, "GIF"), UnsupportedMediaType),
        (encoded(PIXELS, "TIFF"), UnsupportedMediaType),
        (encoded(PIXELS, "JPEG")[:400], ImageDamaged),
        (encoded(PIXELS)[:60], ImageDamaged),
        (_png(200, 100), ImageDamaged),
        (_png(8, 8, kind=3, tRNS=b"\xff\0"), ImageDamaged),  # its palette is missing
        (_png(65_536, 65_536), ImageTooLarge),
        (_png(30_000, 100), ImageTooLarge),
    ],
)
def test_bad_bodies_have_an_error_each(body: bytes, error: type[RequestError]) -> None:
    with pytest.raises(error):
        decode(body, LIMITS)


def test_limits_are_inclusive() -> None:
    body = encoded(PIXELS)
    assert decode(body, ImageLimits(max_pixels=2400, max_side=60)).shape == (40, 60, 3)
    with pytest.raises(ImageTooLarge, match="60x40"):
        decode(body, ImageLimits(max_pixels=2399, max_side=60))
    with pytest.raises(ImageTooLarge):
        decode(body, ImageLimits(max_pixels=2400, max_side=59))


def test_a_flipped_byte_of_an_avif_is_damage_or_harmless() -> None:
    body, damaged = encoded(PIXELS, "AVIF"), 0
    for position in range(0, len(body), 3):
        flipped = bytearray(body)
        flipped[position] ^= 0xFF
        try:
            decode(bytes(flipped), LIMITS)
        except ImageDamaged:  # libavif raises RuntimeError for damaged pixels
            damaged += 1
        except (UnsupportedMediaType, ImageTooLarge):
            pass
    assert damaged > 10


def test_an_avif_with_a_time_scale_of_zero_is_damaged() -> None:
    body = bytearray(encoded(PIXELS, "AVIF", save_all=True, append_images=[Image.fromarray(smooth_image(40, 60, 1))]))
    time_scale = (
        body.find(b"mdhd") + 24
    )  # version and flags, two times of 8 bytes, then units a second: Pillow divides by them
    body[time_scale : time_scale + 4] = bytes(4)
    with pytest.raises(ImageDamaged, match="division by zero"):
        decode(bytes(body), LIMITS)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_bytes_never_raise_anything_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    body = bytearray(encoded(PIXELS, ["PNG", "JPEG", "WEBP", "BMP"][seed % 4]))
    for position in rng.integers(0, len(body), 12):
        body[position] = rng.integers(256)
    with contextlib.suppress(RequestError):
        assert decode(bytes(body), LIMITS).ndim == 3


@pytest.mark.parametrize(
    ("size", "resized", "padded"),
    [
        ((480, 640), (512, 683), (512, 704)),
        ((640, 480), (683, 512), (704, 512)),
        ((427, 640), (512, 767), (512, 768)),
        ((100, 2000), (43, 852), (64, 864)),
        ((1, 5000), (1, 852), (32, 864)),
    ],
)
def test_sizes_follow_the_reference(size: tuple[int, int], resized: tuple[int, int], padded: tuple[int, int]) -> None:
    geometry = plan(*size, PreprocessSpec(852, 512))
    assert (geometry.resized_hw, geometry.padded_hw) == (resized, padded)


def test_prepared_images_are_opencvs_resize_and_zeros() -> None:
    prepared = prepare(PIXELS, PreprocessSpec(96, 64))
    reference = cv2.resize(PIXELS, (96, 64), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(prepared.pixels[:64, :96], reference)
    wide = prepare(smooth_image(30, 60), PreprocessSpec(90, 64))
    assert wide.geometry.padded_hw == (64, 96)
    assert not wide.pixels[45:].any()
    assert not wide.pixels[:, 90:].any()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_peek_size_of_a_broken_image_gives_the_size_in_its_header_or_nothing(kind: str) -> None:
    original, limits = encoded(smooth_image(40, 60), kind), ImageLimits()
    for seed in range(200):
        broken = _broken(original, random.Random(seed))  # noqa: S311  # no secret
        try:
            peeked = peek_size(broken, limits)
        except ImageTooLarge:
            peeked = None
        try:
            expected = size(broken, limits)
        except ServerError:
            continue
        assert peeked in (expected, None), seed


def _broken(original: bytes, rng: random.Random) -> bytes:
    """Up to three bytes of the headers changed, or the file cut off there."""
    body = bytearray(original)
    for _ in range(rng.choice([0, 1, 3])):
        body[rng.randrange(min(len(body), 200))] = rng.randrange(256)
    return bytes(body[: rng.choice([len(body), rng.randrange(200)])])


def test_peek_size_reads_the_usual_jpegs_and_pngs_and_pixels() -> None:
    limits = ImageLimits()
    photographs = sorted(IMAGES.glob("*.jpg"))
    for body in (encoded(smooth_image(40, 60)), *(path.read_bytes() for path in photographs)):
        assert peek_size(body, limits) == size(body, limits)
    assert peek_size(np.zeros((4, 5, 3), np.uint8), limits) == (4, 5)
    assert peek_size(encoded(smooth_image(40, 60), "WEBP"), limits) is None
    with pytest.raises(ImageTooLarge):
        peek_size(encoded(smooth_image(40, 60)), ImageLimits(max_side=50))


def test_peek_size_gives_up_on_a_jpeg_of_endless_segments() -> None:
    """So that it takes microseconds for any file."""
    body = encoded(smooth_image(40, 60), "JPEG")
    comments = b"\xff\xfe\x00\x02" * 100_000
    assert peek_size(body[:2] + comments + body[2:], ImageLimits()) is None
