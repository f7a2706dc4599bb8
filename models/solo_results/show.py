"""A result drawn onto its encoded image, for scripts and notebooks. `types.Result` calls this; it needs Pillow and numpy."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from solo_results.draw import ColourBy, as_png, draw
from solo_results.rle import decode_box
from solo_results.types import Instance, Result
from solo_results.upright import SIDEWAYS, orientation_of, upright_rgb

_NOTEBOOK_WIDTH = 1200  # pixels


def draw_result(result: Result, image: bytes, colour_by: ColourBy, below: float) -> Image.Image:
    """The image with the result's instances; see `types.Result.draw`."""
    return draw(decode_upright(image, (result.height, result.width)), result.instances, colour_by, below)


def notebook_png(drawing: Image.Image) -> bytes:
    """A drawing in PNG, at most 1200 pixels wide."""
    if drawing.width > _NOTEBOOK_WIDTH:
        drawing = drawing.resize(
            (_NOTEBOOK_WIDTH, max(1, round(drawing.height * _NOTEBOOK_WIDTH / drawing.width))),
            Image.Resampling.LANCZOS,
            reducing_gap=2.0,
        )
    return as_png(drawing)


def cut_out(instance: Instance, image: bytes) -> Image.Image:
    """The object alone, RGBA, cropped to its box; see `types.Result.cutout`."""
    rgb = decode_upright(image, instance.mask.size)
    mask = decode_box(instance.mask, instance.box_xywh)
    if not mask.any():
        raise ValueError("the mask has no pixels")
    x, y = (max(corner, 0) for corner in instance.box_xywh[:2])
    part = rgb[y : y + mask.shape[0], x : x + mask.shape[1]]
    return Image.fromarray(np.dstack((part, mask.astype(np.uint8) * 255)))


def decode_upright(image: bytes, image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixels `(H, W, 3) uint8` of an encoded image, as the server sees them.

    Raises:
        OSError: the image cannot be decoded.
        ValueError: the image is not `image_hw`, so it is not the one that was segmented.
    """
    with Image.open(io.BytesIO(image)) as opened:
        orientation = orientation_of(opened)
        width, height = reversed(opened.size) if orientation in SIDEWAYS else opened.size
        if (height, width) != tuple(image_hw):
            raise ValueError(f"the image is {width}x{height}, the result is for {image_hw[1]}x{image_hw[0]}")
        opened.load()
        return upright_rgb(opened, orientation)
