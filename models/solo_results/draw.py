"""Instances drawn onto their image: tinted masks, contours, labels. For people; programs use the masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from solo_results.labels import line, readable
from solo_results.palette import Colour, colour, text_colour
from solo_results.rle import decode_rle
from solo_results.types import Instance

ColourBy = Literal["instance", "class"]

TINT = 90  # of 255: how much of a masked pixel is the instance's colour


def draw(
    rgb: NDArray[np.uint8],
    instances: Sequence[Instance],
    colour_by: ColourBy = "instance",
    below: float = 0.0,
    *,
    captions: Sequence[str] | None = None,
    colour_keys: Sequence[int] | None = None,
) -> Image.Image:
    """The image `(H, W, 3) uint8` with its instances, best first; the best is drawn last, on top.

    colour_by: a colour for each instance, by its rank, or for each class, by its id. below: instances with a lower score are not
    drawn; if that leaves none, a line at the bottom gives their number. captions: the label of each instance, `""` for none; None
    writes class and score. colour_keys: a number for each instance, such as the id of its track; it decides the colour instead
    of `colour_by`.

    Raises:
        DamagedMask: a mask cannot be decoded.
        ValueError: `captions` or `colour_keys` has not one entry an instance.
    """
    canvas = Image.fromarray(rgb)
    drawing, short_side = ImageDraw.Draw(canvas), min(canvas.size)
    size = max(10.0, short_side / 35)
    drawn = [index for index, instance in enumerate(instances) if instance.score >= below]
    if colour_keys is None:
        colour_keys = [each.class_id if colour_by == "class" else rank for rank, each in enumerate(instances)]
    if captions is None:
        captions = [f"{readable(each.label, each.class_id)} {each.score:.2f}" for each in instances]
    for index in reversed(drawn):
        _draw_mask(canvas, instances[index], colour(colour_keys[index]), 2 + short_side // 400)
    for index in reversed(drawn):
        if captions[index]:
            _draw_label(drawing, size, instances[index], captions[index], colour(colour_keys[index]))
    if instances and not drawn:
        _draw_note(drawing, size, f"{_count(len(instances))} below {below:.2f} not drawn")
    return canvas


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


def _draw_label(drawing: ImageDraw.ImageDraw, size: float, instance: Instance, caption: str, colour: Colour) -> None:
    """Draw name and score on a coloured bar above the box, moved so that all of it is inside the image."""
    text = line((caption,), size)
    space = round(size) // 8
    width, height = text.width + 2 * space, text.ascent + text.descent + 2 * space
    x, y = instance.box_xywh[0], max(instance.box_xywh[1], height)
    x = max(0, min(x, drawing.im.size[0] - width))
    drawing.rectangle((x, y - height, x + width, y), colour)
    text.draw(drawing, x + space, y - text.descent - space, text_colour(colour))


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
