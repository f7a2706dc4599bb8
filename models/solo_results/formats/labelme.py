"""LabelMe: one JSON file an image (https://github.com/wkentaro/labelme, `labelme/label_file.py`).

An instance is one polygon, or several with the same `group_id`; holes are bridged. The image is not in the file:
`imageData` is null. The score is a member of each shape, which LabelMe keeps and does not show.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from solo_results.formats.base import (
    Context,
    ImageSize,
    NamedResult,
    WrittenFile,
    beside,
    check_size,
    instance_of,
    result_of,
)
from solo_results.formats.masks import filled
from solo_results.formats.value import Value, parse_json
from solo_results.polygons import bridged, polygons_of_counts
from solo_results.types import Instance

VERSION = "5.5.0"
"""The version of LabelMe whose files these are."""


def write(images: Iterable[NamedResult], context: Context) -> Iterator[WrittenFile]:
    """One file an image; see `Format.write`. An instance without pixels has no shape, and is left out with a note."""
    for image in images:
        result = image.result
        content: dict[str, object] = {
            "version": VERSION,
            "flags": {},
            "shapes": list(_shapes(image, context)),
            "imagePath": PurePosixPath(image.file.replace("\\", "/")).name,
            "imageData": None,
            "imageHeight": result.height,
            "imageWidth": result.width,
        }
        yield WrittenFile(beside(image.file, ".json"), (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read(file: str, content: bytes, context: Context) -> list[NamedResult]:
    """See `Format.read`. Polygons and rectangles; a shape of another kind is refused."""
    root = parse_json(file, content)
    size = check_size((root.member("imageHeight").integer(), root.member("imageWidth").integer()), file, "imageHeight")
    groups: dict[object, list[Value]] = {}
    for index, shape in enumerate(root.member("shapes").items()):
        group = shape.member("group_id").integer() if shape.has("group_id") else None
        key = (shape.member("label").text(), group) if group is not None else index
        groups.setdefault(key, []).append(shape)
    instances = [_instance(shapes, size, context) for shapes in groups.values()]
    path = PurePosixPath(root.member("imagePath").text().replace("\\", "/")).name
    name = str(PurePosixPath(file).with_name(path)) if path else file
    return [NamedResult(context.images.full_name(name) or name, result_of(size, instances))]


def _shapes(image: NamedResult, context: Context) -> Iterator[dict[str, object]]:
    result = image.result
    counts = [instance.mask.counts for instance in result.instances]
    parts_of_masks = polygons_of_counts((result.height, result.width), counts, context.tolerance)
    for number, (instance, parts) in enumerate(zip(result.instances, parts_of_masks, strict=True), start=1):
        if not parts:
            context.note("instances without pixels are left out")
        for part in parts:
            yield {
                "label": instance.label,
                "points": bridged(part).tolist(),
                "group_id": number if len(parts) > 1 else None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
                "score": instance.score,
            }


def _instance(shapes: list[Value], size: ImageSize, context: Context) -> Instance:
    first = shapes[0]
    label = first.member("label")
    try:
        class_id = context.classes.id_of(label.text())
    except LookupError as error:
        raise label.refused(error) from error
    score = first.member("score").number(0, 1) if first.has("score") else 1.0
    runs = filled([[_ring(shape, size)] for shape in shapes], size, first)
    return instance_of(runs, label.text(), class_id, score)


def _ring(shape: Value, size: ImageSize) -> NDArray[np.float64]:
    kind = shape.member("shape_type").text() if shape.has("shape_type") else "polygon"
    if kind in ("polygon", "oriented_rectangle"):
        return shape.member("points").ring_of_points(size)
    if kind == "rectangle":
        (left, top), (right, bottom) = shape.member("points").ring_of_points(size, 2)[:2]
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    raise shape.member("shape_type").refused(f"{kind[:60]!r} has no mask here; polygons and rectangles have")
