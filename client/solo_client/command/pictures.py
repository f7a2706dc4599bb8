"""From the words on the command line to picture files, their COCO image ids and their overlays' names."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from solo_client.command.errors import Unusable

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp"})

_NUMBER_AT_END = re.compile(r"[0-9]+\Z")


def find_pictures(words: Iterable[str]) -> list[Path]:
    """Picture files in the order of `words`, each once.

    A file is taken whatever its name; a folder stands for the pictures directly in it, by suffix, sorted; a pattern for
    what a shell would make of it (`**` crosses folders).

    Raises:
        Unusable: a word names nothing, or there is no picture at all.
    """
    pictures = list(dict.fromkeys(path for word in words for path in _expand(word)))
    if not pictures:
        raise Unusable("no pictures found")
    return pictures


def image_ids(pictures: Sequence[Path]) -> list[int]:
    """COCO image ids: the number that a file's stem ends with (000000000139 -> 139), else its position, from 1.

    Raises:
        Unusable: two pictures would share an id, named; a results file could not tell them apart.
    """
    numbers = [_NUMBER_AT_END.search(path.stem) for path in pictures]
    ids = [int(number[0]) if number else position for position, number in enumerate(numbers, start=1)]
    _refuse_shared(pictures, ids, "image_id")
    return ids


def overlay_files(pictures: Sequence[Path], folder: Path) -> list[Path]:
    """Where the overlays go: folder/<stem>.overlay.png.

    Raises:
        Unusable: two pictures would share a file, named.
    """
    files = [folder / f"{path.stem}.overlay.png" for path in pictures]
    _refuse_shared(pictures, files, "overlay")
    return files


def _expand(word: str) -> list[Path]:
    path = Path(word)
    if path.is_dir():
        return sorted(p for p in path.iterdir() if _is_picture(p))
    if path.exists():
        return [path]
    matches = sorted(glob.glob(word, recursive=True)) if glob.has_magic(word) else []
    if not matches:
        raise Unusable(f"{word}: no such file or folder")
    return [found for match in matches for found in _expand(match)]


def _is_picture(path: Path) -> bool:
    """Hidden files are left out: macOS puts `._photo.jpg`, which is no picture, beside `photo.jpg`."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _refuse_shared(pictures: Sequence[Path], keys: Sequence[object], name: str) -> None:
    first: dict[object, Path] = {}
    for picture, key in zip(pictures, keys, strict=True):
        if key in first:
            raise Unusable(f"{first[key]} and {picture} would share the {name} {key}")
        first[key] = picture
