"""File formats of results: each is written and read by one module, which is imported when it is used.

    from solo_results.formats import Context, Classes, NamedResult, open_format

    writer = open_format("labelme")                         # a name of FORMATS
    for written in writer.write([NamedResult("a.jpg", result)], Context(Classes(model.classes))):
        Path(folder, written.name).write_bytes(written.content)

`write` takes the images of a whole run, one after the other, and gives files as soon as they are complete. A format with
`one_file` gives one file, at the end, with an empty name. The others give a file an image, named as the image, and perhaps files of
classes. `Context` has what a run shares: classes, tolerance of polygons, the images at hand, and `note`, which is told losses.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from solo_results.formats.base import Classes as Classes
from solo_results.formats.base import Context as Context
from solo_results.formats.base import Images as Images
from solo_results.formats.base import NamedResult as NamedResult
from solo_results.formats.base import NoImages as NoImages
from solo_results.formats.base import WrittenFile as WrittenFile


@dataclass(frozen=True, slots=True)
class FormatFacts:
    """What a format is. module, writer: which function writes it; suffix: of its files; loses: in words, None for nothing.

    one_file: all images are in one file.
    """

    module: str
    writer: str
    suffix: str
    one_file: bool
    loses: str | None = None


FORMATS = {
    "json": FormatFacts("results_json", "write_json", ".json", True),
    "polygon": FormatFacts("results_json", "write_polygon", ".json", True),
    "coco": FormatFacts("coco", "write_results", ".json", True, "names of images and classes"),
    "coco-annotations": FormatFacts("coco", "write_annotations", ".json", True),
    "labelme": FormatFacts("labelme", "write", ".json", False, "class ids"),
    "yolo": FormatFacts("yolo", "write", ".txt", False, "scores and sizes"),
    "png": FormatFacts(
        "png", "write_instances", ".png", False, "pixels of overlaps, which are kept for the better score only"
    ),
    "png-classes": FormatFacts(
        "png", "write_classes", ".png", False, "scores, overlaps and which pixel is of which instance"
    ),
    "csv": FormatFacts("areas_csv", "write", ".csv", True, "masks"),
}
"""All formats by name."""


@dataclass(frozen=True, slots=True)
class OpenedFormat:
    """A format whose module is imported. write, read: see `solo_results.formats.base.Format`."""

    write: Callable[[Iterable[NamedResult], Context], Iterator[WrittenFile]]
    read: Callable[[str, bytes, Context], list[NamedResult]]


def open_format(name: str) -> OpenedFormat:
    """The functions of a format. Raises ModuleNotFoundError: Pillow is not installed, which PNG needs."""
    facts = FORMATS[name]
    module = importlib.import_module(f"solo_results.formats.{facts.module}")  # so that only PNG needs Pillow
    return OpenedFormat(getattr(module, facts.writer), module.read)
