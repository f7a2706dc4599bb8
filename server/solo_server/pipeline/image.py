"""Bytes to network input: decode (Pillow), turn upright, resize like the reference, pad.

    body ─► png_chunks (metadata left out) ─► Pillow ─► upright RGB ─► resize ─► pad
                                                └─► jpeg_end, where a JPEG's end marker is missing

If drafts are allowed, a JPEG much larger than the network's input is decoded at 1/2, 1/4 or 1/8 of its size (libjpeg scales during
the inverse transform); limits and geometry use the full size of the image all the same.

Runs before batching, so that a bad image fails alone. Limits are checked on the header, before pixels are decoded.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError
from solo_models.spec import PreprocessSpec
from solo_results.upright import SIDEWAYS, orientation_of, upright_rgb

from solo_server.backends.cpu.kernels.resize import resize_bilinear
from solo_server.errors import EmptyBody, ImageDamaged, ImageTooLarge, UnsupportedMediaType
from solo_server.pipeline.jpeg_end import with_end
from solo_server.pipeline.png_chunks import SIGNATURE, pixel_chunks
from solo_server.pipeline.refused_formats import format_of
from solo_server.types import Geometry, PreparedImage, UInt8

Image.init()
_NAMES = {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "AVIF": "AVIF", "BMP": "BMP"}
FORMATS = tuple(name for name in _NAMES if name in Image.OPEN)
_ACCEPTED = [_NAMES[name] for name in FORMATS]
_WHAT_TO_SEND = f"send {', '.join(_ACCEPTED[:-1])} or {_ACCEPTED[-1]}"
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    ArithmeticError,
    LookupError,
    struct.error,
    EOFError,
    AssertionError,  # where it assumes something that the file lacks, such as a palette
    AttributeError,
    TypeError,
)  # what Pillow raises
_JPEG = b"\xff\xd8"
_BEGINNINGS = {
    "PNG": re.compile(rb"\x89PNG"),  # however its line ends were changed
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "WebP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "AVIF": re.compile(rb"....ftypavi[fs]", re.DOTALL),
}
_PNG_HEAD = SIGNATURE + b"\x00\x00\x00\x0dIHDR"
_PNG_HEAD_BYTES = len(_PNG_HEAD) + 8
_FRAMES = (0xC0, 0xC1, 0xC2)  # of a JPEG: baseline, extended, progressive
_MOST_SEGMENTS = 32  # of a JPEG, that are read; cameras and editors write a dozen
DRAFT_RATIO = 2  # a draft's sides are at least so many times the network input's; docs/engines.md has the cost


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest image that is decoded. draft: large JPEGs may be decoded at a fraction of their size."""

    max_pixels: int = 64_000_000
    max_side: int = 16_384
    draft: bool = False


def peek_size(body: bytes | UInt8, limits: ImageLimits) -> tuple[int, int] | None:
    """As `size`, within microseconds, for RGB pixels and the usual JPEGs and PNGs; `None`: call `size`.

    Pillow may read another size from the same file: compare with the size that was decoded.

    Raises:
        ImageTooLarge: see `solo_server.errors`.
    """
    if not isinstance(body, bytes):
        hw: tuple[int, int] | None = (body.shape[0], body.shape[1])
    elif body.startswith(_PNG_HEAD):
        hw = _png_hw(body)
    else:
        hw = _jpeg_hw(body)
    if hw is None or 0 in hw:
        return None
    _check_size(hw[1], hw[0], limits)
    return hw


def size(body: bytes | UInt8, limits: ImageLimits) -> tuple[int, int]:
    """Rows and columns from the header, before any rotation, or of RGB pixels; no pixel is decoded.

    Raises:
        EmptyBody, UnsupportedMediaType, ImageTooLarge, ImageDamaged: see `solo_server.errors`.
    """
    if not isinstance(body, bytes):
        height, width = body.shape[:2]
        _check_size(width, height, limits)
        return height, width
    if not body:
        raise EmptyBody("the request has no body; send the bytes of one image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _open(body)
    _check_size(*image.size, limits)
    return image.height, image.width


def decode(body: bytes, limits: ImageLimits) -> UInt8:
    """An upright RGB image `(H, W, 3) uint8`; transparency is dropped, and animations give their first frame.

    Raises:
        EmptyBody, UnsupportedMediaType, ImageTooLarge, ImageDamaged: see `solo_server.errors`.
    """
    return _decode(body, limits, None)[0]


def decode_draft(body: bytes, limits: ImageLimits, spec: PreprocessSpec) -> tuple[UInt8, tuple[int, int]]:
    """As `decode`, but a JPEG is as small as `DRAFT_RATIO` allows; also returns the full size `(H, W)` of the upright image."""
    return _decode(body, limits, spec)


def _decode(body: bytes, limits: ImageLimits, draft_for: PreprocessSpec | None) -> tuple[UInt8, tuple[int, int]]:
    if not body:
        raise EmptyBody("the request has no body; send the bytes of one image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about sizes below our own limit and about odd metadata
        image = _open(body)
        _check_size(*image.size, limits)
        try:
            return _upright_rgb(image, draft_for)
        except _DAMAGE as problem:
            image.close()  # its memory is needed next
            completed = with_end(body) if body.startswith(_JPEG) else None
            if completed is None:
                raise ImageDamaged(f"the {image.format} data cannot be decoded: {_reason(problem)}") from problem
    return _decode(completed, limits, draft_for)


def _upright_rgb(image: Image.Image, draft_for: PreprocessSpec | None) -> tuple[UInt8, tuple[int, int]]:
    width, height = image.size
    if draft_for is not None:
        factor = draft_factor(height, width, draft_for)
        image.draft(None, (max(1, width // factor), max(1, height // factor)))
    image.load()
    orientation = orientation_of(image)
    return upright_rgb(image, orientation), (width, height) if orientation in SIDEWAYS else (height, width)


def prepare(image: UInt8, spec: PreprocessSpec, original_hw: tuple[int, int] | None = None) -> PreparedImage:
    """Scale to the network's size and pad; `image` is `(H, W, 3) uint8` RGB.

    original_hw: full size of the image if `image` is a draft of it; all sizes are computed from it.
    """
    height, width = original_hw or image.shape[:2]
    geometry = plan(height, width, spec)
    h, w = geometry.resized_hw
    padded = np.zeros((*geometry.padded_hw, 3), np.uint8)
    if (h, w) == image.shape[:2]:
        padded[:h, :w] = image
    else:
        resize_bilinear(image, (h, w), padded)
    return PreparedImage(padded, geometry)


def plan(height: int, width: int, spec: PreprocessSpec) -> Geometry:
    """Sizes of an image of `height` x `width`: mmcv `imrescale` (side * scale + 0.5, rounded down), then padding."""
    long, short = max(height, width), min(height, width)
    scale = min(spec.long_side / long, spec.short_side / short)
    resized = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
    multiple = spec.pad_multiple
    padded = tuple(-(-side // multiple) * multiple for side in resized)
    return Geometry((height, width), resized, (padded[0], padded[1]))


def draft_factor(height: int, width: int, spec: PreprocessSpec) -> int:
    """The factor by which a JPEG of `height` x `width` may be decoded smaller: 1, 2, 4 or 8; independent of its rotation."""
    resized_h, resized_w = plan(height, width, spec).resized_hw
    shrink = max(height / resized_h, width / resized_w)
    return next((factor for factor in (8, 4, 2) if shrink >= factor * DRAFT_RATIO), 1)


def _png_hw(body: bytes) -> tuple[int, int] | None:
    if len(body) < _PNG_HEAD_BYTES:
        return None
    width, height = struct.unpack_from(">II", body, len(_PNG_HEAD))
    return height, width


def _jpeg_hw(body: bytes) -> tuple[int, int] | None:
    """Rows and columns of the first frame header, if it is among the first segments and no fill bytes precede it."""
    if not body.startswith(_JPEG):
        return None
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if at + 9 > len(body):
            return None
        mark, kind, length, _, height, width = struct.unpack_from(">BBHBHH", body, at)
        if mark != 0xFF or not 0xC0 <= kind <= 0xFE or 0xD0 <= kind <= 0xDA:
            return None
        if kind in _FRAMES:
            return height, width
        at += 2 + length
    return None


def _open(body: bytes) -> Image.Image:
    if body.startswith(SIGNATURE):
        body = pixel_chunks(body)
    try:
        return Image.open(io.BytesIO(body), formats=FORMATS)
    except UnidentifiedImageError as problem:
        raise _unidentified(body) from problem
    except Image.DecompressionBombError as problem:
        raise ImageTooLarge("the image has far too many pixels") from problem
    except _DAMAGE as problem:
        raise ImageDamaged(f"the header cannot be read: {_reason(problem)}") from problem


def _unidentified(body: bytes) -> UnsupportedMediaType | ImageDamaged:
    """The error for what Pillow cannot open: a damaged file of an accepted format, another format, or no image."""
    damaged = next((name for name, begins in _BEGINNINGS.items() if begins.match(body)), None)
    if damaged is not None:
        return ImageDamaged(f"the {damaged} is damaged: its header cannot be read")
    kind = format_of(body)
    if kind is not None:
        return UnsupportedMediaType(f"{kind} is not accepted; {_WHAT_TO_SEND}")
    return UnsupportedMediaType(f"not a supported image; {_WHAT_TO_SEND}")


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        allowed = f"{limits.max_pixels} pixels and {limits.max_side} on a side"
        raise ImageTooLarge(f"the image is {width}x{height}; at most {allowed} are accepted")
    if width < 1 or height < 1:
        raise ImageDamaged("the image has no pixels")


def _reason(problem: BaseException) -> str:
    if isinstance(problem, (AssertionError, AttributeError, TypeError)):
        return "its parts contradict each other"
    return str(problem).splitlines()[0][:120] if str(problem) else type(problem).__name__
