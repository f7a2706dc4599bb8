"""PNG: instances as numbers (`png`), and classes as colours of a palette (`png-classes`), of one size with the image.

`png` has 16 bits a pixel: 0 is background, n the n-th instance by score; where masks overlap, the pixel is of the better one. Its
text chunk `solo:instances` has the table: a JSON list with label, class id and score of number 1, 2 and so on. `png-classes` has
8 bits as in Pascal VOC: 0 is background, n + 1 the class n; class names are in `solo:classes`. Needs Pillow.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from solo_results.errors import UnreadableFile, Unwritable
from solo_results.formats.base import (
    MAX_CLASS_ID,
    Context,
    NamedResult,
    WrittenFile,
    beside,
    check_size,
    image_name,
    instance_of,
    result_of,
)
from solo_results.formats.value import Value, parse_json
from solo_results.palette import colour
from solo_results.runs import ObjectRuns, runs_of_counts
from solo_results.types import Instance

TABLE, CLASSES = "solo:instances", "solo:classes"
MAX_INSTANCES, MAX_CLASSES = 65_535, 254
_GRAY, _PALETTE = ("I;16", "I", "L"), ("P",)


def write_instances(images: Iterable[NamedResult], context: Context) -> Iterator[WrittenFile]:
    """One file an image; see `Format.write`.

    Raises:
        Unwritable: an image has more than MAX_INSTANCES.
    """
    for image in images:
        instances = image.result.instances
        if len(instances) > MAX_INSTANCES:
            raise Unwritable(f"{image.file}: {len(instances)} instances; a PNG has numbers for {MAX_INSTANCES}")
        pixels = _painted(image, range(1, len(instances) + 1), np.uint16)
        table = [{"label": one.label, "class_id": one.class_id, "score": one.score} for one in instances]
        yield WrittenFile(beside(image.file, ".png"), _png(Image.fromarray(pixels), TABLE, table))


def write_classes(images: Iterable[NamedResult], context: Context) -> Iterator[WrittenFile]:
    """One file an image; see `Format.write`.

    Raises:
        Unwritable: a class id is over MAX_CLASSES - 1.
    """
    colours = [(0, 0, 0), *(colour(class_id) for class_id in range(255))]
    for image in images:
        highest = max((one.class_id for one in image.result.instances), default=0)
        if highest >= MAX_CLASSES:
            raise Unwritable(f"{image.file}: class {highest}; a PNG of classes has {MAX_CLASSES}")
        pixels = _painted(image, [one.class_id + 1 for one in image.result.instances], np.uint8)
        drawn = Image.fromarray(pixels, "L")
        drawn.putpalette([value for one in colours for value in one])
        yield WrittenFile(beside(image.file, ".png"), _png(drawn, CLASSES, context.classes.names()))


def read(file: str, content: bytes, context: Context) -> list[NamedResult]:
    """Both kinds; see `Format.read`. Of a PNG of classes, all pixels of a class are one instance."""
    image = _opened(file, content)
    text = getattr(image, "text", {})
    pixels = np.asarray(image)
    if image.mode in _PALETTE:
        names = (
            [name.text() for name in parse_json(file, str(text[CLASSES]).encode()).items()] if CLASSES in text else None
        )
        instances = list(_classes(pixels, names, Value(file, "", None), context))
    elif TABLE in text:
        instances = list(_instances(pixels, parse_json(file, str(text[TABLE]).encode()), context))
    else:
        raise UnreadableFile(file, "", f"is no PNG of instances: it has no text {TABLE!r}")
    height, width = pixels.shape
    return [NamedResult(image_name(file, context), result_of((height, width), instances))]


def _painted(image: NamedResult, values: Sequence[int], kind: type[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """`(H, W)`, C order: the value of the best instance at each pixel, 0 without any."""
    height, width = image.result.height, image.result.width
    painted = np.zeros((width, height), kind)  # column by column, as run lengths are
    flat = painted.ravel()
    for instance, value in reversed(list(zip(image.result.instances, values, strict=True))):
        runs = runs_of_counts(instance.mask.size, instance.mask.counts)
        for start, end in zip(runs.starts.tolist(), runs.ends.tolist(), strict=True):
            flat[start:end] = value
    return np.ascontiguousarray(painted.T)


def _png(image: Image.Image, keyword: str, table: object) -> bytes:
    chunks, file = PngImagePlugin.PngInfo(), io.BytesIO()
    chunks.add_itxt(keyword, json.dumps(table, ensure_ascii=False, allow_nan=False))
    image.save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


def _opened(file: str, content: bytes) -> Image.Image:
    """The image with its pixels. Raises UnreadableFile: no PNG of numbers, too large, or damaged."""
    try:
        with warnings.catch_warnings(
            action="ignore", category=Image.DecompressionBombWarning
        ):  # check_size has the limit
            image = Image.open(io.BytesIO(content), formats=("PNG",))
        check_size((image.height, image.width), file, "")
        if image.mode not in _GRAY + _PALETTE:
            raise UnreadableFile(file, "", f"a PNG of masks is gray or has a palette; this one is {image.mode}")
        image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UnreadableFile(file, "", f"is not a whole PNG: {error}") from error
    return image


def _instances(pixels: NDArray[np.integer], table: Value, context: Context) -> Iterator[Instance]:
    entries = table.items()
    if pixels.size and int(pixels.max()) > len(entries):
        raise table.refused(f"a pixel has the number {int(pixels.max())}, but the table has {len(entries)} instances")
    masks, nothing = _masks(pixels), ObjectRuns(pixels.shape, np.zeros(0, np.int64), np.zeros(0, np.int64))
    for number, entry in enumerate(entries, start=1):
        label, class_id = entry.member("label").text(), entry.member("class_id")
        try:
            context.classes.add(class_id.integer(0, MAX_CLASS_ID), label)
        except LookupError as error:
            raise class_id.refused(error) from error
        runs = masks.get(number, nothing)
        yield instance_of(runs, label, class_id.integer(), entry.member("score").number(0, 1))


def _classes(pixels: NDArray[np.integer], names: list[str] | None, root: Value, context: Context) -> Iterator[Instance]:
    for value, runs in _masks(pixels).items():
        if value in (0, 255):  # background, and VOC's outline that is of no class
            continue
        try:
            if names is not None and value <= len(names):
                context.classes.add(value - 1, names[value - 1])
            label = context.classes.name_of(value - 1)
        except LookupError as error:
            raise root.refused(error) from error
        yield instance_of(runs, label, value - 1, 1.0)


def _masks(pixels: NDArray[np.integer]) -> dict[int, ObjectRuns]:
    """The pixels of each value that occurs, in the order of values."""
    height, width = pixels.shape
    flat = pixels.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = np.append(0, changes), np.append(changes, len(flat))
    order = np.argsort(flat[starts], kind="stable")
    values, first = np.unique(flat[starts][order], return_index=True)
    groups = np.split(order, first[1:])
    return {
        int(value): ObjectRuns((height, width), starts[group], ends[group])
        for value, group in zip(values, groups, strict=True)
    }
