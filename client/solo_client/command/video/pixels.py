"""The pixels of a frame, as the local pipeline takes them and as a server gets them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""Upright RGB: `(H, W, 3) uint8`, C order."""

JPEG_QUALITY = 90


def to_jpeg(rgb: Pixels) -> bytes:
    """The frame as JPEG."""
    body = io.BytesIO()
    Image.fromarray(rgb).save(body, "JPEG", quality=JPEG_QUALITY)
    return body.getvalue()
