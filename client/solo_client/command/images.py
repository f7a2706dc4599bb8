"""Turns the command line's arguments into image paths, and into the paths of their overlays."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from solo_client.command.errors import Unusable

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp"})
STDIN = Path("-")
FOREIGN_FOLDERS = frozenset({"@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found"})
"""Folders that file servers and archives create, for thumbnails and deleted files."""


@dataclass(frozen=True, slots=True)
class ImagePath:
    """An image to segment. path: its file, or STDIN; below: its folder, relative to the folder given on the command line."""

    path: Path
    below: Path = Path()


def find_images(words: Iterable[str], *, recursive: bool = False) -> list[ImagePath]:
    """The images in the order of `words`, without duplicates.

    A file is taken whatever its name. `-` is standard input. A folder stands for the images in it (with `recursive` also in
    its subfolders), by suffix, sorted. A pattern is expanded as by a shell (`**` matches across folders).

    Raises:
        Unusable: a word matches nothing, or there are no images at all.
        OSError: a folder cannot be read.
    """
    found: dict[Path, ImagePath] = {}
    for word in words:
        for image in [ImagePath(STDIN)] if word == "-" else _expand(word, recursive):
            found.setdefault(image.path, image)
    if not found:
        raise Unusable("no images found" + ("" if recursive else "; --recursive also searches subfolders"))
    return list(found.values())


def overlay_files(images: Sequence[ImagePath], destination: Path) -> list[Path]:
    """The path of each image's overlay. `destination` is a file if its name ends in .png (one image only), else a folder.

    In a folder overlays are named `<stem>.overlay.png` and keep the images' subfolders. Images with the same stem keep their
    suffix: `<name>.overlay.png`.

    Raises:
        Unusable: a file name for several images, or with another suffix; two overlays would have the same path; an overlay
            would replace an image.
    """
    files = _overlay_paths(images, destination)
    paths = {image.path.absolute() for image in images}
    for image, file in zip(images, files, strict=True):
        if file.absolute() in paths:
            raise Unusable(f"--overlay: the overlay of {image.path} would replace the image {file}")
    return files


def refuse_shared(images: Sequence[ImagePath], keys: Sequence[object], name: str, way_out: str) -> None:
    """Raises Unusable if two images have the same key; way_out: what the user can do."""
    first: dict[object, Path] = {}
    for image, key in zip(images, keys, strict=True):
        if key in first:
            raise Unusable(f"{first[key]} and {image.path} would have the same {name} {key}; {way_out}")
        first[key] = image.path


def _overlay_paths(images: Sequence[ImagePath], destination: Path) -> list[Path]:
    if destination == STDIN:
        raise Unusable("--overlay: must be a file or a folder, not -")
    if not destination.is_dir() and destination.suffix.lower() in SUFFIXES:
        return [_overlay_file(images, destination)]
    stems = Counter((image.below, _stem(image)) for image in images)
    files = [
        destination / p.below / f"{_stem(p) if stems[p.below, _stem(p)] == 1 else p.path.name}.overlay.png"
        for p in images
    ]
    refuse_shared(images, files, "overlay", "segment them in two runs")
    return files


def _overlay_file(images: Sequence[ImagePath], file: Path) -> Path:
    if len(images) > 1:
        raise Unusable(f"--overlay: {file} is one file, but there are {len(images)} images: give a folder")
    if file.suffix.lower() != ".png":
        raise Unusable(f"--overlay: {file}: overlays are PNG files; use {file.with_suffix('.png')}, or a folder")
    return file


def _stem(image: ImagePath) -> str:
    return "stdin" if image.path == STDIN else image.path.stem


def _expand(word: str, recursive: bool) -> Iterator[ImagePath]:
    path = Path(word)
    if path.is_dir():
        yield from _in_folder(path, recursive)
    elif path.exists():
        yield ImagePath(path.absolute() if path == STDIN else path)
    else:
        matches = sorted(glob.glob(word, recursive=True)) if glob.has_magic(word) else []
        if not matches:
            raise Unusable(f"{word}: no such file or folder")
        for match in matches:
            yield from _expand(match, recursive)


def _in_folder(root: Path, recursive: bool) -> Iterator[ImagePath]:
    for folder, below, names in os.walk(root, onerror=_raise):
        below[:] = sorted(n for n in below if not n.startswith(".") and n not in FOREIGN_FOLDERS) if recursive else []
        paths = [Path(folder, name) for name in sorted(names)]
        yield from (ImagePath(path, path.parent.relative_to(root)) for path in paths if _is_image(path))


def _is_image(path: Path) -> bool:
    """Hidden files are skipped: macOS puts `._photo.jpg`, which is not an image, beside `photo.jpg`."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _raise(error: OSError) -> None:
    raise error
