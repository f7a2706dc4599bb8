"""Draws results onto frames, and makes pictures that an encoder takes. Needs numpy, Pillow and PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image, ImageOps
from solo_results.draw import ColourBy, draw
from solo_results.labels import readable

from solo_client.command.video.pixels import Pixels
from solo_client.command.video.source import SourceFrame

if TYPE_CHECKING:
    from solo_client.command.output import Segmented

_BT709, _LIMITED = 1, 1


def draw_frame(rgb: Pixels, shown: Segmented | None, colour_by: ColourBy, below: float) -> Image.Image:
    """The frame `(H, W, 3) uint8` with the instances that score at least `below`. A track keeps its colour."""
    if shown is None:
        return Image.fromarray(rgb)
    ids = shown.track_ids or (0,) * len(shown.result.instances)
    drawn = [(one, number) for one, number in zip(shown.result.instances, ids, strict=True) if one.score >= below]
    instances = [one for one, _ in drawn]
    if shown.track_ids is None:
        return draw(rgb, instances, colour_by)
    captions = [f"{readable(one.label, one.class_id)} #{number} {one.score:.2f}" for one, number in drawn]
    keys = [one.class_id if colour_by == "class" else number for one, number in drawn]
    return draw(rgb, instances, colour_by, captions=captions, colour_keys=keys)


def to_picture(image: Image.Image, canvas_hw: Sequence[int], frame: SourceFrame) -> VideoFrame:
    """A yuv420p picture of even sides, `canvas_hw` rounded up, with the frame's time.

    A frame of another size is scaled into the canvas, with black beside it.
    """
    height, width = canvas_hw
    if image.size != (width, height):
        image = ImageOps.pad(image, (width, height), Image.Resampling.BILINEAR)
    pixels = np.pad(np.asarray(image), ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    picture = av.VideoFrame.from_ndarray(pixels).reformat(
        format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED, threads=1
    )
    picture.pts, picture.time_base = frame.pts, frame.time_base
    return picture
