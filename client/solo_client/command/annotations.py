"""Image and category ids for COCO results, from a COCO annotations file or by the rules in `--help`.

annotations file ─► names with ids ─► image_ids, category_ids ─► command.output
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from solo_results.coco import coco_name

from solo_client.command.errors import Unusable
from solo_client.command.images import ImagePath, refuse_shared

IMAGE_IDS, CATEGORIES = "--image-ids", "--categories"
BY_NAME, BY_POSITION = "name", "position"

_WAYS = "--image-ids position numbers them from 1, --image-ids FILE takes the ids from a COCO annotations file"
_NUMBER_AT_END = re.compile(r"[0-9]+\Z")
_LONGEST_LIST = 5  # names listed in a message

Named = tuple[str, int]
"""A name of an annotations file and its id."""


def image_ids(images: Sequence[ImagePath], rule: str | None) -> list[int]:
    """COCO image ids. rule: `name`, `position`, an annotations file, or None: see `--help`.

    Raises:
        Unusable: two images would have the same id, or an image has none; the message names them.
    """
    if rule == BY_POSITION:
        return list(range(1, len(images) + 1))
    if rule not in (None, BY_NAME):
        return _ids_of_file(images, Path(rule))
    numbers = [_NUMBER_AT_END.search(image.path.stem) for image in images]
    without = [str(p.path) for p, number in zip(images, numbers, strict=True) if number is None]
    if rule == BY_NAME and without:
        raise Unusable(f"{IMAGE_IDS} name: no number at the end of {_listed(without)}; {_WAYS}")
    ids = [int(number[0]) if number else position for position, number in enumerate(numbers, start=1)]
    refuse_shared(images, ids, "image_id", _WAYS)
    return ids


def category_ids(file: Path, labels: Sequence[str], *, for_all: bool) -> dict[str, int]:
    """Ids of a model's labels, by name; mmdet's `traffic_light` matches COCO's `traffic light`. for_all: each label needs one.

    Raises:
        Unusable: the file is not an annotations file, has two categories with the same name, or lacks a required one.
    """
    by_name: dict[str, list[int]] = {}
    for name, number in _read(CATEGORIES, file, "categories", "name"):
        by_name.setdefault(name, []).append(number)
    found = {label: by_name.get(label) or by_name.get(coco_name(label)) or [] for label in labels}
    several = [label for label, numbers in found.items() if len(numbers) > 1]
    if several:
        raise Unusable(f"{CATEGORIES}: {file} has several categories with the name {several[0]!r}")
    missing = [repr(label) for label, numbers in found.items() if not numbers]
    if missing and for_all:
        raise Unusable(
            f"{CATEGORIES}: {file} has no category {_listed(missing)} (it has {_listed(list(by_name)) or 'none'}); "
            "--classes selects which of the model's classes to keep"
        )
    return {label: numbers[0] for label, numbers in found.items() if numbers}


def _ids_of_file(images: Sequence[ImagePath], file: Path) -> list[int]:
    """Match by file name; if several entries share it, by the whole path that the entry has."""
    by_name: dict[str, list[Named]] = {}
    for path, number in _read(IMAGE_IDS, file, "images", "file_name"):
        by_name.setdefault(PurePosixPath(path).name, []).append((path, number))
    matching = [_matching(image, by_name.get(image.path.name, [])) for image in images]
    wrong = [str(image.path) for image, entries in zip(images, matching, strict=True) if len(entries) != 1]
    if wrong:
        raise Unusable(f"{IMAGE_IDS}: {file} has no entry, or several, for {_listed(wrong)}")
    ids = [number for ((_, number),) in matching]
    refuse_shared(images, ids, "image_id", f"{file} has it once")
    return ids


def _matching(image: ImagePath, entries: Sequence[Named]) -> Sequence[Named]:
    """The only entry; of several, those whose path is a suffix of the image's path."""
    if len(entries) < 2:
        return entries
    image_parts = image.path.absolute().parts
    return [entry for entry in entries if (parts := PurePosixPath(entry[0]).parts) == image_parts[-len(parts) :]]


def _read(argument: str, file: Path, member: str, name: str) -> list[Named]:
    """Read the names and ids of one list in a COCO annotations file.

    Raises:
        Unusable: the file cannot be read, or is not an annotations file.
    """
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise Unusable(f"{argument}: {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{argument}: {file} is not JSON: {error}") from error
    entries = content.get(member) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise Unusable(f"{argument}: {file} is not a COCO annotations file: it has no list {member!r}")
    return [_named(entry, name, f"{argument}: {file}: {member}[{index}]") for index, entry in enumerate(entries)]


def _named(entry: object, name: str, where: str) -> Named:
    text, number = (entry.get(name), entry.get("id")) if isinstance(entry, dict) else (None, None)
    if not isinstance(text, str):
        raise Unusable(f"{where}.{name} should be a string")
    if not isinstance(number, int) or isinstance(number, bool):
        raise Unusable(f"{where}.id should be a whole number")
    return text, number


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LONGEST_LIST} more" if len(names) > _LONGEST_LIST else ""
    return ", ".join(names[:_LONGEST_LIST]) + more
