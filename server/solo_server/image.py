"""Bytes to network input: decode (Pillow), turn upright, resize like the reference, pad.

Runs before batching, so that a bad picture fails alone. Limits are checked on the header, before pixels are decoded.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from solo_models.spec import PreprocessSpec

from solo_server.errors import EmptyBody, ImageDamaged, ImageTooLarge, UnsupportedMediaType
from solo_server.types import Geometry, PreparedPicture, UInt8

Image.init()
FORMATS = tuple(name for name in ("JPEG", "PNG", "WEBP", "AVIF", "BMP") if name in Image.OPEN)
_DAMAGE = (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError)  # what Pillow's decoders raise
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest picture that is decoded."""

    max_pixels: int = 64_000_000
    max_side: int = 16_384


def decode(body: bytes, limits: ImageLimits) -> UInt8:
    """An upright RGB picture `(H, W, 3) uint8`; transparency is dropped, of animations the first frame is taken.

    Raises:
        EmptyBody, UnsupportedMediaType, ImageTooLarge, ImageDamaged: see `solo_server.errors`.
    """
    if not body:
        raise EmptyBody("the request has no body; send the bytes of one picture")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about sizes below our own limit and about odd metadata
        image = _open(body)
        _check_size(image, limits)
        try:
            image.load()
            upright = _upright(image)
            return _to_rgb(upright)
        except _DAMAGE as problem:
            raise ImageDamaged(f"the {image.format} data cannot be decoded: {_reason(problem)}") from problem


def prepare(picture: UInt8, spec: PreprocessSpec) -> PreparedPicture:
    """Scale to the network's size and pad; `picture` is `(H, W, 3) uint8` RGB."""
    geometry = plan(picture.shape[0], picture.shape[1], spec)
    h, w = geometry.resized_hw
    if (h, w) == geometry.original_hw:
        resized = picture
    else:
        resized = np.asarray(cv2.resize(picture, (w, h), interpolation=cv2.INTER_LINEAR), np.uint8)
    padded = np.zeros((*geometry.padded_hw, 3), np.uint8)
    padded[:h, :w] = resized
    return PreparedPicture(padded, geometry)


def plan(height: int, width: int, spec: PreprocessSpec) -> Geometry:
    """Sizes of a picture of `height` x `width`: mmcv `imrescale` (side * scale + 0.5, rounded down), then padding."""
    long, short = max(height, width), min(height, width)
    scale = min(spec.long_side / long, spec.short_side / short)
    resized = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
    multiple = spec.pad_multiple
    padded = tuple(-(-side // multiple) * multiple for side in resized)
    return Geometry((height, width), resized, (padded[0], padded[1]))


def _open(body: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(body), formats=FORMATS)
    except UnidentifiedImageError as problem:
        raise UnsupportedMediaType(f"the body is no picture of an accepted format ({', '.join(FORMATS)})") from problem
    except Image.DecompressionBombError as problem:
        raise ImageTooLarge("the picture has far too many pixels") from problem
    except _DAMAGE as problem:
        raise ImageDamaged(f"the header cannot be read: {_reason(problem)}") from problem


def _check_size(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        allowed = f"{limits.max_pixels} pixels and {limits.max_side} on a side"
        raise ImageTooLarge(f"the picture is {width}x{height}; at most {allowed} are accepted")
    if width < 1 or height < 1:
        raise ImageDamaged("the picture has no pixels")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except (OSError, SyntaxError, ValueError, TypeError, struct.error, EOFError, KeyError, IndexError):
        return image  # broken metadata says nothing about the pixels: the picture is taken as it lies
    return image.transpose(_TURNS[orientation]) if isinstance(orientation, int) and orientation in _TURNS else image


def _to_rgb(image: Image.Image) -> UInt8:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip to 255 instead of scaling
        grey = (np.asarray(image, np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"), np.uint8)


def _reason(problem: BaseException) -> str:
    return str(problem).splitlines()[0][:120] if str(problem) else type(problem).__name__
