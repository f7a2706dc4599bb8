"""Instances drawn onto their picture: tinted masks, outlines, labels. For people; programs take the RLE."""

from __future__ import annotations

import colorsys
import io

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from solo_server.rle import decode_rle
from solo_server.types import Instance, UInt8

GOLDEN_ANGLE = 0.381966  # steps of hue that stay far apart however many there are
SATURATION = 0.75
TINT = 128  # of 255: how much of a masked pixel is the instance's colour

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_png(rgb: UInt8, instances: tuple[Instance, ...], class_names: tuple[str, ...], below: float = 0.0) -> bytes:
    """The picture `(H, W, 3) uint8` with its instances, as PNG; the best is drawn last, on top.

    below: instances with a lower score are not drawn.
    """
    instances = tuple(instance for instance in instances if instance.score >= below)
    canvas = Image.fromarray(rgb)
    drawing, short_side = ImageDraw.Draw(canvas), min(canvas.size)
    font = ImageFont.load_default(max(10.0, short_side / 35))
    for rank, instance in reversed(list(enumerate(instances))):
        _draw_mask(canvas, instance, _colour(rank), 2 + short_side // 400)
    for rank, instance in reversed(list(enumerate(instances))):
        _draw_label(drawing, font, instance, f"{class_names[instance.class_id]} {instance.score:.2f}", _colour(rank))
    png = io.BytesIO()
    canvas.save(png, "PNG", compress_level=3)
    return png.getvalue()


def _draw_mask(canvas: Image.Image, instance: Instance, colour: Colour, thickness: int) -> None:
    """Tint the mask and draw a line of `thickness` pixels along its edge, half of it outside."""
    x, y, width, height = instance.box_xywh
    margin = thickness + 1
    inside = np.pad(decode_rle(instance.mask)[y : y + height, x : x + width].astype(np.uint8), margin)
    edge = Image.fromarray(inside * 255).filter(ImageFilter.BoxBlur((thickness + 1) / 2)).point(_line(thickness))
    opacity = ImageChops.lighter(Image.fromarray(inside * TINT), edge)
    left, top = x - margin, y - margin
    canvas.paste(colour, (left, top, left + opacity.width, top + opacity.height), opacity)


def _line(thickness: int) -> list[int]:
    """Opacity of a line along an edge for each value of the edge blurred over `thickness + 2` pixels: 128 is the line's middle."""
    distance = np.abs(np.arange(256) / 255 - 0.5) * (thickness + 2)
    return [round(opacity * 255) for opacity in np.clip(thickness / 2 + 0.5 - distance, 0, 1)]


def _draw_label(drawing: ImageDraw.ImageDraw, font: Font, instance: Instance, text: str, colour: Colour) -> None:
    """The text on a bar of the colour above the box, moved to where all of it can be seen."""
    height = round(font.getbbox("Ag")[3])
    space = height // 8
    width = round(font.getlength(text)) + 2 * space
    x, y = instance.box_xywh[0], max(instance.box_xywh[1], height)
    x = max(0, min(x, drawing.im.size[0] - width))
    drawing.rectangle((x, y - height, x + width, y), colour)
    drawing.text((x + space, y - height), text, (0, 0, 0), font)


def _colour(rank: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(rank * GOLDEN_ANGLE % 1, SATURATION, 1)
    return round(red * 255), round(green * 255), round(blue * 255)
