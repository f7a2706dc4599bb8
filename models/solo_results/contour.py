"""Masks drawn on an image: a tint inside, and along the edge an anti-aliased line with a thinner one of contrast around it.

image ─► Canvas (planes of colour) ─► draw_mask, for each mask ─► image

A mask is smoothed by two box filters. Their result is a function of the distance to the edge, and two tables turn it into the
opacity of both lines, so that only the pixels near the edge are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from solo_results.palette import Colour, text_colour

UInt8 = NDArray[np.uint8]

TINT = 0.375
"""How much of a masked pixel is the instance's colour: 3/8, a sum of two shifts."""
_INSET = 0.25  # pixels: of a line of 1.5, one pixel is fully covered, and not two partly
_OUTER_OPACITY = 0.6
_THINNEST, _THICKEST = 1.5, 14.0  # pixels
_SIDE_OF_THICKER = 600  # pixels of the image's short side for each pixel of the line


@dataclass(frozen=True, slots=True)
class Pen:
    """The width of the line along the edge, and of the one around it, in pixels; the taps of each of the two box filters."""

    width: float
    outer: float
    taps: int

    @property
    def margin(self) -> int:
        """How far outside its mask, in pixels, both filters and the lines reach."""
        return 2 * (self.taps - 1)


@dataclass(frozen=True, slots=True)
class _Tables:
    """By the values of `_smooth`, `float32`: how much stays of the image, and the opacities of the line and of the one around it.

    first, last: the values at which there is a line.
    """

    kept: NDArray[np.float32]
    line: NDArray[np.float32]
    outer: NDArray[np.float32]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Canvas:
    """An image as planes `(3, H + 2 * margin, W + 2 * margin) uint8`, so that lines can leave it."""

    planes: UInt8
    pen: Pen


def pen_for(image_hw: tuple[int, int]) -> Pen:
    """The pen for an image: 1.5 pixels up to a short side of 900, then wider in proportion."""
    width = min(max(min(image_hw) / _SIDE_OF_THICKER, _THINNEST), _THICKEST)
    outer = max(1.0, 0.5 * width)
    return Pen(width, outer, max(3, int(np.ceil(width / 2 + outer + 0.5))))


def open_canvas(rgb: UInt8) -> Canvas:
    """A copy of an image `(H, W, 3) uint8` to draw on."""
    height, width = rgb.shape[:2]
    pen = pen_for((height, width))
    margin = pen.margin
    planes = np.zeros((3, height + 2 * margin, width + 2 * margin), np.uint8)
    planes[:, margin:-margin, margin:-margin] = rgb.transpose(2, 0, 1)
    return Canvas(planes, pen)


def to_image(canvas: Canvas) -> Image.Image:
    """The image drawn so far, RGB."""
    margin = canvas.pen.margin
    return Image.merge("RGB", [Image.fromarray(plane[margin:-margin, margin:-margin]) for plane in canvas.planes])


def draw_mask(canvas: Canvas, mask: NDArray[np.bool_], left: int, top: int, colour: Colour) -> None:
    """Draw a mask `(h, w) bool` whose upper left corner is at `left`, `top`, inside the image."""
    pen, (height, width) = canvas.pen, mask.shape
    margin = pen.margin
    inside = np.zeros((height + 2 * margin, width + 2 * margin), np.uint8)
    inside[margin:-margin, margin:-margin] = mask
    for plane, value in zip(canvas.planes, colour, strict=True):
        _tint(plane[top + margin : top + margin + height, left + margin : left + margin + width],
              inside[margin:-margin, margin:-margin], value)  # fmt: skip
    _stroke(canvas, inside, left, top, colour)


def _tint(part: UInt8, inside: UInt8, value: int) -> None:
    """Blend `value` into the pixels where `inside` is 1: `part + TINT * (value - part)`, modulo 256 on the way."""
    change = part >> 2
    change += part >> 3
    change -= np.uint8((value >> 2) + (value >> 3))
    change *= inside
    part -= change


def _stroke(canvas: Canvas, inside: UInt8, left: int, top: int, colour: Colour) -> None:
    """Draw both lines along the edge of `inside`, which has the pen's margin around the mask."""
    pen, box_width, plane_width = canvas.pen, inside.shape[1], canvas.planes.shape[2]
    smooth = _smooth(inside, pen.taps)
    tables = _tables(pen)
    near = np.flatnonzero(
        smooth - smooth.dtype.type(tables.first) <= tables.last - tables.first
    )  # wraps below the first
    found, near = smooth.take(near), near + (pen.taps - 1) * (box_width + 1)
    pixels = near + near // box_width * (plane_width - box_width) + (top * plane_width + left)
    kept, around = tables.kept.take(found), text_colour(colour)
    for plane, value, contrast in zip(canvas.planes, colour, around, strict=True):
        added = (tables.line * value + tables.outer * contrast + np.float32(0.5)).take(found)
        flat = plane.reshape(-1)
        flat[pixels] = (flat.take(pixels) * kept + added).astype(np.uint8)


def _smooth(inside: UInt8, taps: int) -> NDArray[np.unsignedinteger]:
    """Two box filters along each axis of an array with a margin of `2 * (taps - 1)` zeros: flat, without the first and last rows.

    Values: 0..taps**4. The value of pixel (r, c) is at `(r - taps + 1) * width + c - taps + 1`.
    """
    values = inside.reshape(-1)
    if taps > 3:
        values = values.astype(np.uint16)
    for step in (1, 1, inside.shape[1], inside.shape[1]):
        length = len(values) - (taps - 1) * step
        total = values[:length] + values[step : step + length]
        for tap in range(2, taps):
            total += values[tap * step : tap * step + length]
        values = total
    return values


@lru_cache(maxsize=16)
def _tables(pen: Pen) -> _Tables:
    share = np.arange(pen.taps**4 + 1) / pen.taps**4
    nearer = pen.taps - pen.taps * np.sqrt(2 * np.minimum(share, 1 - share))  # two box filters make a triangle
    distance = np.where(share >= 0.5, nearer, -nearer) - _INSET  # pixels from the middle of the line, positive inside
    line = np.clip(pen.width / 2 + 0.5 - np.abs(distance), 0, 1)
    reach = pen.width / 2 + pen.outer
    outer = np.where(distance < 0, np.clip(reach + 0.5 + distance, 0, 1), 0) * _OUTER_OPACITY * (1 - line)
    outer[share == 0] = 0
    kept = 1 - line - outer
    near = np.flatnonzero(kept < 1 - 1 / 512)
    return _Tables(
        kept.astype(np.float32), line.astype(np.float32), outer.astype(np.float32), int(near[0]), int(near[-1])
    )
