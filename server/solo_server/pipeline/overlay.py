"""Instances drawn onto their image: tinted masks, outlines, labels. For people; programs use the RLE."""

from __future__ import annotations

import colorsys
import io

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from solo_results.rle import decode_rle

from solo_server.pipeline.labels import line, readable
from solo_server.types import Instance, UInt8

GOLDEN_ANGLE = 0.381966  # a step of hue: any number of them stay far apart
SATURATION = 0.75
TINT = 90  # of 255: how much of a masked pixel is the instance's colour

Colour = tuple[int, int, int]


def draw_png(rgb: UInt8, instances: tuple[Instance, ...], class_names: tuple[str, ...], below: float = 0.0) -> bytes:
    """As `draw`, in PNG."""
    return as_png(draw(rgb, instances, class_names, below))


def draw(rgb: UInt8, instances: tuple[Instance, ...], class_names: tuple[str, ...], below: float = 0.0) -> Image.Image:
    """The image `(H, W, 3) uint8` with its instances; the best is drawn last, on top.

    below: instances with a lower score are not drawn; if that leaves none, a line at the bottom gives their number.
    """
    canvas = Image.fromarray(rgb)
    drawing, short_side = ImageDraw.Draw(canvas), min(canvas.size)
    size = max(10.0, short_side / 35)
    names = readable(class_names)
    drawn = [instance for instance in instances if instance.score >= below]
    for rank, instance in reversed(list(enumerate(drawn))):
        _draw_mask(canvas, instance, _colour(rank), 2 + short_side // 400)
    for rank, instance in reversed(list(enumerate(drawn))):
        _draw_label(drawing, size, instance, names[instance.class_id], _colour(rank))
    if instances and not drawn:
        _draw_note(drawing, size, f"{_count(len(instances))} below {below:.2f} not drawn")
    return canvas


def not_drawn(instances: tuple[Instance, ...], below: float) -> int:
    """How many instances `draw` leaves out for their score."""
    return sum(instance.score < below for instance in instances)


def as_png(image: Image.Image) -> bytes:
    """The image in PNG, compressed for speed rather than size."""
    png = io.BytesIO()
    image.save(png, "PNG", compress_level=3)
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
    """Opacity of a line along an edge, for each value of the edge blurred over `thickness + 2` pixels: 128 is its middle."""
    distance = np.abs(np.arange(256) / 255 - 0.5) * (thickness + 2)
    return [round(opacity * 255) for opacity in np.clip(thickness / 2 + 0.5 - distance, 0, 1)]


def _draw_label(drawing: ImageDraw.ImageDraw, size: float, instance: Instance, name: str, colour: Colour) -> None:
    """Draw name and score on a coloured bar above the box, moved so that all of it is inside the image."""
    text = line((name, f" {instance.score:.2f}"), size)
    space = round(size) // 8
    width, height = text.width + 2 * space, text.ascent + text.descent + 2 * space
    x, y = instance.box_xywh[0], max(instance.box_xywh[1], height)
    x = max(0, min(x, drawing.im.size[0] - width))
    drawing.rectangle((x, y - height, x + width, y), colour)
    text.draw(drawing, x + space, y - text.descent - space, (0, 0, 0))


def _draw_note(drawing: ImageDraw.ImageDraw, size: float, note: str) -> None:
    """Draw white on black in the lower left corner, in smaller letters if the image is narrow."""
    image_width, image_height = drawing.im.size
    space = round(size) // 4
    text = line((note,), size)
    if text.width + 2 * space > image_width:
        text = line((note,), max(6.0, size * (image_width - 2 * space) / text.width))
    top = image_height - text.ascent - text.descent - 2 * space
    drawing.rectangle((0, top, text.width + 2 * space, image_height), (0, 0, 0))
    text.draw(drawing, space, image_height - text.descent - space, (255, 255, 255))


def _count(instances: int) -> str:
    return "1 instance" if instances == 1 else f"{instances} instances"


def _colour(rank: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(rank * GOLDEN_ANGLE % 1, SATURATION, 1)
    return round(red * 255), round(green * 255), round(blue * 255)
