"""YOLO-seg: one text file an image, one line an instance: `class x1 y1 x2 y2 ...`, coordinates as shares of the image's size.

Parts and holes are bridged into one ring. `classes.txt` (a name a line) and `data.yaml` have the class names. Also read: a score at
the end of a line, as Ultralytics writes it with `save_conf`. https://docs.ultralytics.com/datasets/segment/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from solo_results.errors import UnreadableFile
from solo_results.formats.base import (
    Context,
    ImageSize,
    NamedResult,
    WrittenFile,
    beside,
    image_name,
    instance_of,
    result_of,
    size_from_images,
)
from solo_results.formats.masks import filled
from solo_results.formats.value import Value, inside
from solo_results.polygons import bridged_parts, polygons_of_counts
from solo_results.types import Instance

CLASSES_FILE, DATA_FILE = "classes.txt", "data.yaml"
_DIGITS = 6
"""Behind the point: a thousandth of a pixel at 1,000 pixels, so that masks stay the same."""
_LEAST_NUMBERS = 7
_BOX_NUMBERS = 5


def write(images: Iterable[NamedResult], context: Context) -> Iterator[WrittenFile]:
    """One file an image, then those of the classes; see `Format.write`. Instances without pixels are left out with a note."""
    for image in images:
        lines = list(_lines(image, context))
        yield WrittenFile(beside(image.file, ".txt"), "".join(f"{line}\n" for line in lines).encode())
    names = context.classes.names()
    yield WrittenFile(CLASSES_FILE, "".join(f"{_one_line(name)}\n" for name in names).encode())
    # JSON is YAML, and quotes every name
    yield WrittenFile(DATA_FILE, f"nc: {len(names)}\nnames: {json.dumps(names, ensure_ascii=False)}\n".encode())


def read(file: str, content: bytes, context: Context) -> list[NamedResult]:
    """See `Format.read`. The size is that of the image at hand; class names are the given ones."""
    size = size_from_images(file, context)
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UnreadableFile(file, "", "is not text") from error
    instances = [_instance(line.split(), size, Value(file, f"line {number}", line), context)
                 for number, line in enumerate(lines, start=1) if line.strip()]  # fmt: skip
    return [NamedResult(image_name(file, context), result_of(size, instances))]


def _lines(image: NamedResult, context: Context) -> Iterator[str]:
    result = image.result
    counts = [instance.mask.counts for instance in result.instances]
    parts_of_masks = polygons_of_counts((result.height, result.width), counts, context.tolerance)
    for instance, parts in zip(result.instances, parts_of_masks, strict=True):
        if not parts:
            context.note("instances without pixels are left out")
            continue
        shares = (bridged_parts(parts) / (result.width, result.height)).ravel().tolist()
        yield f"{instance.class_id} " + " ".join(f"{share:.{_DIGITS}f}".rstrip("0").rstrip(".") for share in shares)


def _instance(words: list[str], size: ImageSize, line: Value, context: Context) -> Instance:
    if len(words) == _BOX_NUMBERS:
        raise line.refused("is a box, not a polygon")
    if len(words) < _LEAST_NUMBERS:
        raise line.unexpected("a class and at least three points")
    numbers = _numbers(words, line)
    class_id, score = _class_id(words[0], line), 1.0
    if len(words) % 2 == 0:
        score, numbers = float(numbers[-1]), numbers[:-1]
        if not 0 <= score <= 1:
            raise line.refused(f"the score {score:g} is not in 0 to 1")
    ring = inside(numbers[1:].reshape(-1, 2) * (size[1], size[0]), size, line)
    try:
        label = context.classes.name_of(class_id)
    except LookupError as error:
        raise line.refused(f"{error}; give --classes") from error
    return instance_of(filled([[ring]], size, line), label, class_id, score)


def _numbers(words: list[str], line: Value) -> NDArray[np.float64]:
    try:
        return np.array(words, np.float64)
    except ValueError as error:
        raise line.unexpected("numbers, separated by spaces") from error


def _class_id(word: str, line: Value) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) < _LEAST_NUMBERS):
        raise Value(line.file, line.place, word).unexpected("a class id")
    return int(word)


def _one_line(name: str) -> str:
    return " ".join(name.split())
