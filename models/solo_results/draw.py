"""Instances drawn onto their image: tinted masks, contours, labels. For people; programs use the masks.

instances ─► decode_box ─► contour (tint, lines) ─► find_anchors ─► place_labels ─► leaders, labels ─► image

The server's overlays, `solo segment`, the client's results and notebooks draw with this.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from solo_results.contour import Canvas, draw_mask, open_canvas, to_image
from solo_results.labels import Text, line, one_line, readable
from solo_results.palette import Colour, colour, text_colour
from solo_results.placing import Anchors, Place, find_anchors, place_labels
from solo_results.rle import decode_box
from solo_results.types import Instance

ColourBy = Literal["instance", "class"]

_SMALLEST_LETTERS = 11.0  # pixels
_LETTERS = 42  # of them fit into the image's short side, one above the other
_OVERSAMPLING = 4
_WIDE = 4.0  # pixels of a leader, in large images, from where on it is drawn without oversampling, which would take much memory


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

    No label covers another one. A label that finds no free place is left out; the best are placed first.

    colour_by: a colour for each instance, by its rank, or for each class, by its id. below: instances with a lower score are not
    drawn; if that leaves none, a line at the bottom gives their number. captions: the label of each instance, `""` for none; None
    writes class and score. colour_keys: a number for each instance, such as the id of its track; it decides the colour instead
    of `colour_by`.

    Raises:
        DamagedMask: a mask cannot be decoded.
        ValueError: the image is not `(H, W, 3) uint8`, a mask has another size, or `captions` or `colour_keys` has not one entry
            an instance.
    """
    _check(rgb, instances, captions, colour_keys)
    if colour_keys is None:
        colour_keys = [each.class_id if colour_by == "class" else rank for rank, each in enumerate(instances)]
    drawn = [index for index, instance in enumerate(instances) if instance.score >= below]
    colours = {index: colour(colour_keys[index]) for index in drawn}
    canvas, anchors = open_canvas(rgb), {}
    for index in reversed(drawn):
        anchors[index] = _draw_mask(canvas, instances[index], colours[index])
    image, size = to_image(canvas), letters_size(rgb.shape[:2])
    texts = {index: line(_caption(instances[index], captions, index), size) for index in drawn}
    labelled = [index for index in drawn if texts[index].runs]
    _draw_labels(image, [(texts[index], anchors[index], colours[index]) for index in labelled], size)
    if instances and not drawn:
        _draw_note(image, size, f"{_count(len(instances))} below {below:.2f} not drawn")
    return image


def as_png(image: Image.Image) -> bytes:
    """The image in PNG, compressed for speed: level 1 takes a quarter less time than 3, for 4 % more bytes (benchmarks/draw.py)."""
    png = io.BytesIO()
    image.save(png, "PNG", compress_level=1)
    return png.getvalue()


def letters_size(image_hw: tuple[int, int]) -> float:
    """The size of a label's letters in pixels: at least 11, in proportion to the short side of a large image."""
    return max(_SMALLEST_LETTERS, min(image_hw) / _LETTERS)


def _check(
    rgb: NDArray[np.uint8], instances: Sequence[Instance], captions: Sequence[str] | None, keys: Sequence[int] | None
) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"the image must be (H, W, 3) uint8, not {rgb.shape} {rgb.dtype}")
    for number, instance in enumerate(instances):
        if tuple(instance.mask.size) != rgb.shape[:2]:
            raise ValueError(f"the mask of instance {number} is {instance.mask.size}, the image {rgb.shape[:2]}")
    for name, given in (("captions", captions), ("colour_keys", keys)):
        if given is not None and len(given) != len(instances):
            raise ValueError(f"{name} has {len(given)} entries for {len(instances)} instances")


def _draw_mask(canvas: Canvas, instance: Instance, colour: Colour) -> Anchors:
    """Draw one mask, and find where its label can be."""
    mask = decode_box(instance.mask, instance.box_xywh)
    left, top = (max(corner, 0) for corner in instance.box_xywh[:2])
    if mask.size:
        draw_mask(canvas, mask, left, top, colour)
    return find_anchors(mask, left, top)


def _caption(instance: Instance, captions: Sequence[str] | None, index: int) -> tuple[str, ...]:
    """The parts of a label; each keeps its own direction of writing."""
    if captions is not None:
        return (one_line(captions[index]),)
    return (readable(instance.label, instance.class_id), f" {instance.score:.2f}")


def _draw_labels(image: Image.Image, labels: Sequence[tuple[Text, Anchors, Colour]], size: float) -> None:
    """Draw the labels that have a place, and lines to the objects of those that are away from them; labels: best first."""
    space = max(round(size / 5), 2)
    sizes = [(text.width + 2 * space, text.ascent + text.descent + space) for text, _, _ in labels]
    places = place_labels([anchors for _, anchors, _ in labels], sizes, (image.height, image.width), space)
    for place, (_, _, ink), label_wh in zip(places, labels, sizes, strict=True):
        if place is not None and place.leader_to is not None:
            _draw_leader(image, place, place.leader_to, label_wh, ink, max(1.5, size / 9))
    for place, (text, _, ink), (width, height) in zip(places, labels, sizes, strict=True):
        if place is not None:
            corners = (place.left, place.top, place.left + width, place.top + height)
            image.paste(ink, corners, _bar(width, height, min(space, height // 2)))
            text.draw(image, place.left + space, place.top + space // 2 + text.ascent, text_colour(ink))


@lru_cache(maxsize=128)
def _bar(width: int, height: int, radius: int) -> Image.Image:
    """The opacity `L` of a rectangle with round corners."""
    opacity = Image.new("L", (width, height), 255)
    right, bottom = width - radius, height - radius
    for corner, at in zip(_corners(radius), ((0, 0), (0, bottom), (right, bottom), (right, 0)), strict=True):
        opacity.paste(corner, at)
    return opacity


@lru_cache(maxsize=16)
def _corners(radius: int) -> tuple[Image.Image, ...]:
    """The quarters of a disc, anti-aliased: upper left, then to the left around."""
    side = radius * _OVERSAMPLING
    large = Image.new("L", (side, side))
    ImageDraw.Draw(large).ellipse((0, 0, 2 * side, 2 * side), 255)
    corner = large.reduce(_OVERSAMPLING)
    return tuple(corner.rotate(90 * turns) for turns in range(4))


def _draw_leader(
    image: Image.Image, place: Place, end: tuple[int, int], label_wh: tuple[int, int], colour: Colour, width: float
) -> None:
    """Draw a line from a label to its object, with a dot at its end and an outer line of contrast."""
    start = (place.left + label_wh[0] / 2, place.top + label_wh[1] / 2)
    reach, times = round(3 * width) + 2, _OVERSAMPLING if width < _WIDE else 1
    left, top = (int(min(a, b)) - reach for a, b in zip(start, end, strict=True))
    right, bottom = (int(max(a, b)) + reach for a, b in zip(start, end, strict=True))
    for ink, more in ((text_colour(colour), width), (colour, 0.0)):
        large = Image.new("L", ((right - left) * times, (bottom - top) * times))
        drawing = ImageDraw.Draw(large)
        (x0, y0), (x1, y1) = (((x - left + 0.5) * times, (y - top + 0.5) * times) for x, y in (start, end))
        drawing.line((x0, y0, x1, y1), 255, round((width + more) * times))
        dot = (1.5 * width + more / 2) * times
        drawing.ellipse((x1 - dot, y1 - dot, x1 + dot, y1 + dot), 255)
        image.paste(ink, (left, top, right, bottom), large.reduce(times))


def _draw_note(image: Image.Image, size: float, note: str) -> None:
    """Draw white on black in the lower left corner, in smaller letters if the image is narrow."""
    space = round(size) // 4
    text = line((note,), size)
    if text.width + 2 * space > image.width:
        text = line((note,), max(6.0, size * (image.width - 2 * space) / text.width))
    top = image.height - text.ascent - text.descent - 2 * space
    image.paste((0, 0, 0), (0, max(top, 0), min(text.width + 2 * space + 1, image.width), image.height))
    text.draw(image, space, image.height - text.descent - space, (255, 255, 255))


def _count(instances: int) -> str:
    return "1 instance" if instances == 1 else f"{instances} instances"
