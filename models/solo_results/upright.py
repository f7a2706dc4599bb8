"""Images with the orientation and colours in which they are segmented: the server decodes with this, and clients draw with it."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

_TRANSPOSES = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
"""The EXIF orientations that exchange width and height."""


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation; 1 if there is none.

    `Image.getexif` would also take it from XMP and from text, which OpenCV and browsers do not. For an AVIF, Pillow gives the
    rotation of the image itself here (`irot` and `imir`) and ignores the EXIF orientation, as browsers do.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif") or b"")
        orientation = exif.get(ExifTags.Base.Orientation)
    except (OSError, SyntaxError, ValueError, TypeError, struct.error, EOFError, KeyError, IndexError):
        return 1  # broken metadata: the image is not rotated
    return orientation if isinstance(orientation, int) else 1


def upright_rgb(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """The pixels of a loaded image, turned by its orientation: `(H, W, 3) uint8` RGB; transparency is dropped."""
    return _to_rgb(image.transpose(_TRANSPOSES[orientation]) if orientation in _TRANSPOSES else image)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip to 255 instead of scaling
        grey = (np.asarray(image, np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"), np.uint8)
