"""The size of an image file, from its header. Needs Pillow."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from solo_results.errors import UnreadableFile

_SIDEWAYS = frozenset({5, 6, 7, 8})  # EXIF orientations


def image_size(path: Path) -> tuple[int, int]:
    """`(H, W)` in pixels, after EXIF orientation.

    Raises:
        UnreadableFile: it is no image that Pillow reads.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            width, height = image.size
            is_sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UnreadableFile(str(path), "", "is not an image that can be read") from error
    return (width, height) if is_sideways else (height, width)
