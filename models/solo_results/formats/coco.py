"""COCO: a results file (`coco`), as `COCO.loadRes` reads it, and an annotations file (`coco-annotations`), as `COCO` reads it.

Annotations have polygons without holes, each filled by itself and joined with the others: parts are bridged. Their scores are kept
as a member `score`, which other readers ignore. https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from solo_results.coco import COCO_IDS, coco_category_ids
from solo_results.errors import UnreadableFile
from solo_results.formats.base import (
    Context,
    ImageSize,
    NamedResult,
    WrittenFile,
    check_size,
    instance_of,
    result_of,
)
from solo_results.formats.masks import filled, read_rle
from solo_results.formats.value import Value, parse_json
from solo_results.polygons import Part, bridged, polygons_of_counts
from solo_results.runs import ObjectRuns
from solo_results.types import Instance

_NUMBER_AT_END = re.compile(r"([0-9]{1,15})\Z")


@dataclass(frozen=True, slots=True)
class _Category:
    label: str
    class_id: int


def write_results(images: Iterable[NamedResult], context: Context) -> Iterator[WrittenFile]:
    """One list of all instances, without boxes: `loadRes` would use their areas. See `Format.write`."""
    kept = list(images)
    category_ids = _category_ids(context)
    ids = image_ids([image.file for image in kept], context)
    entries = [
        entry for image, number in zip(kept, ids, strict=True) for entry in image.result.to_coco(number, category_ids)
    ]
    yield _file(entries)


def write_annotations(images: Iterable[NamedResult], context: Context) -> Iterator[WrittenFile]:
    """One object with images, annotations and categories. See `Format.write`."""
    kept = list(images)
    category_ids = _category_ids(context)
    ids = image_ids([image.file for image in kept], context)
    annotations: list[dict[str, object]] = []
    for image, image_id in zip(kept, ids, strict=True):
        for entry in _annotations(image, category_ids, context.tolerance):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id} | entry)
    entries = [
        {"id": number, "file_name": image.file, "width": image.result.width, "height": image.result.height}
        for image, number in zip(kept, ids, strict=True)
    ]
    categories = [{"id": number, "name": name} for name, number in category_ids.items()]
    yield _file({"images": entries, "annotations": annotations, "categories": categories})


def image_ids(files: Sequence[str], context: Context) -> list[int]:
    """The numbers at the ends of the names, where every image has another one; else 1, 2, 3 and so on."""
    numbers = [_NUMBER_AT_END.search(PurePosixPath(file).stem) for file in files]
    found = [int(number[1]) for number in numbers if number]
    if len(set(found)) == len(files):
        return found
    context.note("image_id is the position of the image, from 1: the names do not end in a number each")
    return list(range(1, len(files) + 1))


def read(file: str, content: bytes, context: Context) -> list[NamedResult]:
    """Both kinds; see `Format.read`."""
    root = parse_json(file, content)
    return _read_results(root, context) if isinstance(root.value, list) else _read_annotations(root, context)


def _category_ids(context: Context) -> dict[str, int]:
    """COCO's own where all classes are COCO's, else class_id + 1."""
    ids = context.classes.ids()
    return coco_category_ids(list(ids)) or {name: class_id + 1 for name, class_id in ids.items()}


def _annotations(image: NamedResult, category_ids: Mapping[str, int], tolerance: float) -> Iterator[dict[str, object]]:
    result = image.result
    counts = [instance.mask.counts for instance in result.instances]
    for instance, parts in zip(
        result.instances, polygons_of_counts((result.height, result.width), counts, tolerance), strict=True
    ):
        yield {
            "category_id": category_ids[instance.label],
            "segmentation": _polygons(parts) if parts else instance.mask.to_coco(),
            "area": instance.area,
            "bbox": list(instance.box_xywh),
            "iscrowd": 0,
            "score": instance.score,
        }


def _polygons(parts: Sequence[Part]) -> list[list[int]]:
    return [bridged(part).ravel().tolist() for part in parts]


def _file(content: object) -> WrittenFile:
    return WrittenFile("", (json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n").encode())


def _read_annotations(root: Value, context: Context) -> list[NamedResult]:
    categories = _categories(root.member("categories"), context)
    names: dict[int, str] = {}
    sizes: dict[int, ImageSize] = {}
    for image in root.member("images").items():
        number = image.member("id").integer()
        if number in names:
            raise image.refused(f"image {number} is there twice")
        names[number] = image.member("file_name").text()
        size = (image.member("height").integer(), image.member("width").integer())
        sizes[number] = check_size(size, image.file, image.place)
    instances: dict[int, list[Instance]] = {number: [] for number in names}
    for entry in root.member("annotations").items():
        number = entry.member("image_id").integer()
        if number not in names:
            raise entry.member("image_id").refused(f"there is no image {number}")
        instances[number].append(_instance(entry, sizes[number], categories))
    return [NamedResult(name, result_of(sizes[number], instances[number])) for number, name in names.items()]


def _read_results(root: Value, context: Context) -> list[NamedResult]:
    """Names of images are those at hand that end in the id, else the id; categories need `--classes`."""
    categories = _categories_of_results(root, context)
    sizes: dict[int, ImageSize] = {}
    instances: dict[int, list[Instance]] = {}
    for entry in root.items():
        number, segmentation = entry.member("image_id").integer(), entry.member("segmentation")
        if number not in sizes:
            height, width = (side.integer() for side in segmentation.member("size").items(2))
            sizes[number] = check_size((height, width), entry.file, segmentation.place)
        instances.setdefault(number, []).append(_instance(entry, sizes[number], categories))
    return [
        NamedResult(context.images.numbered(number) or str(number), result_of(sizes[number], found))
        for number, found in instances.items()
    ]


def _categories(entries: Value, context: Context) -> dict[int, _Category]:
    """In the order of ids; given classes keep their own ids."""
    found: dict[int, _Category] = {}
    for entry in sorted(entries.items(), key=lambda entry: entry.member("id").integer()):
        number, label = entry.member("id").integer(), entry.member("name").text()
        if number in found:
            raise entry.refused(f"category {number} is there twice")
        try:
            found[number] = _Category(label, context.classes.id_of(label))
        except LookupError as error:
            raise entry.member("name").refused(error) from error
    return found


def _categories_of_results(root: Value, context: Context) -> dict[int, _Category]:
    if not context.classes.are_given:
        raise UnreadableFile(root.file, "", "a COCO results file has no class names: give --classes, or --classes coco")
    return {number: _Category(name, context.classes.id_of(name)) for name, number in _category_ids(context).items()}


def _instance(entry: Value, size: ImageSize, categories: Mapping[int, _Category]) -> Instance:
    category_id = entry.member("category_id")
    category = categories.get(category_id.integer())
    if category is None:
        raise category_id.refused(f"there is no category {category_id.value}")
    score = entry.member("score").number(0, 1) if entry.has("score") else 1.0
    return instance_of(_runs(entry.member("segmentation"), size), category.label, category.class_id, score)


def _runs(segmentation: Value, size: ImageSize) -> ObjectRuns:
    if isinstance(segmentation.value, dict):
        return read_rle(segmentation, size)
    return filled([[ring.ring(size)] for ring in segmentation.items()], size, segmentation)


COCO_NAMES = tuple(COCO_IDS)
"""COCO's 80 names in the order of class ids."""
