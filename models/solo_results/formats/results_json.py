"""Our own JSON, as `POST /segment` and `solo segment` write it, with run lengths (`json`) or with polygons (`polygon`).

One image is an object, several are a list; each has its `file`. Also read: JSON lines, and the answer to a form with several files.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from solo_results.errors import UnreadableFile
from solo_results.formats.base import (
    MAX_CLASS_ID,
    Context,
    NamedResult,
    WrittenFile,
    check_size,
    image_name,
    instance_of,
    result_of,
)
from solo_results.formats.masks import read_parts, read_rle
from solo_results.formats.value import Value, parse_json
from solo_results.polygons import polygons_of_counts
from solo_results.types import Instance, Result


def write_json(images: Iterable[NamedResult], context: Context) -> Iterator[WrittenFile]:
    """One file with all images; masks are run lengths. See `Format.write`."""
    yield _document([{"file": image.file} | image.result.to_dict() for image in images])


def write_polygon(images: Iterable[NamedResult], context: Context) -> Iterator[WrittenFile]:
    """One file with all images; instances have `polygons` in place of `mask`. See `Format.write`."""
    yield _document([{"file": image.file} | with_polygons(image.result, context.tolerance) for image in images])


def with_polygons(result: Result, tolerance: float = 0.0) -> dict[str, object]:
    """The result in the wire format of `format=polygon`: each instance has `polygons`, `[[exterior, hole, ...], ...]`."""
    counts = [instance.mask.counts for instance in result.instances]
    parts_of_masks = polygons_of_counts((result.height, result.width), counts, tolerance)
    content, instances = result.to_dict(), []
    for instance, parts in zip(result.instances, parts_of_masks, strict=True):
        members = instance.to_dict()
        del members["mask"]
        instances.append(members | {"polygons": [part.to_flat() for part in parts]})
    return content | {"instances": instances}


def read(file: str, content: bytes, context: Context) -> list[NamedResult]:
    """See `Format.read`. Images that had failed, and have an `error`, are left out with a note.

    Absolute names become relative to the folder that they share. Frame 7 of `a.mp4` is called `a_000007.png`.
    """
    found = []
    for entry in _entries(file, content):
        if entry.has("error"):
            context.note("images without a result are left out")
        else:
            found.append(_image(entry, context))
    return _relative(found)


def _document(entries: Sequence[object]) -> WrittenFile:
    return WrittenFile("", (json.dumps(entries[0] if len(entries) == 1 else entries, allow_nan=False) + "\n").encode())


def _entries(file: str, content: bytes) -> list[Value]:
    lines = [line for line in content.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith(b"{") and lines[0].rstrip().endswith(b"}"):
        parsed = [parse_json(file, line) for line in lines]
        return [Value(file, f"line {number}", line.value) for number, line in enumerate(parsed, start=1)]
    root = parse_json(file, content)
    if isinstance(root.value, list):
        return root.items()
    return root.member("results").items() if root.has("results") else [root]


def _image(entry: Value, context: Context) -> NamedResult:
    name = next((entry.member(key).text() for key in ("file", "filename") if entry.has(key)), "")
    image = entry.member("image")
    size = check_size((image.member("height").integer(), image.member("width").integer()), entry.file, image.place)
    instances = [_instance(instance, size, context) for instance in entry.member("instances").items()]
    model = entry.member("model") if entry.has("model") else None
    result = result_of(size, instances)
    if model is not None:
        name_of_model, version = model.member("name").text(), model.member("version").text()
        result = Result(result.width, result.height, name_of_model, version, {}, result.instances)
    if entry.has("frame"):
        path = PurePosixPath(name or entry.file)
        name = str(path.with_name(f"{path.stem}_{entry.member('frame').integer():06}.png"))
    return NamedResult(name or image_name(entry.file, context), result)


def _relative(images: list[NamedResult]) -> list[NamedResult]:
    """`solo segment` writes the paths that it was given."""
    if not images or not all(image.file.startswith("/") for image in images):
        return images
    paths = [PurePosixPath("/" + image.file.lstrip("/")) for image in images]  # two at the start are another root
    shared = posixpath.commonpath([path.parent for path in paths])
    return [
        NamedResult(path.relative_to(shared).as_posix(), image.result)
        for path, image in zip(paths, images, strict=True)
    ]


def _instance(entry: Value, size: tuple[int, int], context: Context) -> Instance:
    label, class_id = entry.member("label").text(), entry.member("class_id")
    try:
        context.classes.add(class_id.integer(0, MAX_CLASS_ID), label)
    except LookupError as error:
        raise class_id.refused(error) from error
    if entry.has("mask"):
        runs = read_rle(entry.member("mask"), size)
    elif entry.has("polygons"):
        runs = read_parts(entry.member("polygons"), size)
    else:
        raise UnreadableFile(entry.file, entry.place, "has neither mask nor polygons")
    return instance_of(runs, label, class_id.integer(), entry.member("score").number(0, 1))
