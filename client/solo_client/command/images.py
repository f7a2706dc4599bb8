"""From the words on the command line to images, and the files of their overlays."""

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
"""What file servers and archives leave behind: thumbnails, deleted files."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image to do. path: its file, or STDIN; below: its folder, seen from the folder that was named."""

    path: Path
    below: Path = Path()


def find_images(words: Iterable[str], *, recursive: bool = False) -> list[Image]:
    """Images in the order of `words`, each once.

    A file is taken whatever its name, `-` is standard input; a folder stands for the images directly in it (`recursive`: and in
    the folders below it), by suffix, sorted; a pattern for what a shell would make of it (`**` crosses folders).

    Raises:
        Unusable: a word names nothing, or there is no image at all.
        OSError: a folder cannot be read.
    """
    found: dict[Path, Image] = {}
    for word in words:
        for image in [Image(STDIN)] if word == "-" else _expand(word, recursive):
            found.setdefault(image.path, image)
    if not found:
        raise Unusable("no images found" + ("" if recursive else "; --recursive also looks into the folders below"))
    return list(found.values())


def overlay_files(images: Sequence[Image], place: Path) -> list[Path]:
    """Where the overlays go. `place` is a file for one image if its name ends in .png, else a folder.

    In a folder they are `<stem>.overlay.png`, in folders as the images below the folder that was named; images of the same stem
    keep their suffix: `<name>.overlay.png`.

    Raises:
        Unusable: a file name for several images or of another format; two images would share a file, named; an overlay would
            replace an image.
    """
    files = _overlay_places(images, place)
    paths = {image.path.absolute() for image in images}
    for image, file in zip(images, files, strict=True):
        if file.absolute() in paths:
            raise Unusable(f"--overlay: the overlay of {image.path} would replace the image {file}")
    return files


def refuse_shared(images: Sequence[Image], keys: Sequence[object], name: str, way_out: str) -> None:
    """Raises Unusable where two images have the same key; way_out: what the caller can do."""
    first: dict[object, Path] = {}
    for image, key in zip(images, keys, strict=True):
        if key in first:
            raise Unusable(f"{first[key]} and {image.path} would share the {name} {key}; {way_out}")
        first[key] = image.path


def _overlay_places(images: Sequence[Image], place: Path) -> list[Path]:
    if place == STDIN:
        raise Unusable("--overlay: needs the name of a file or a folder, not -")
    if not place.is_dir() and place.suffix.lower() in SUFFIXES:
        return [_overlay_file(images, place)]
    stems = Counter((image.below, _stem(image)) for image in images)
    files = [
        place / p.below / f"{_stem(p) if stems[p.below, _stem(p)] == 1 else p.path.name}.overlay.png" for p in images
    ]
    refuse_shared(images, files, "overlay", "segment them in two runs")
    return files


def _overlay_file(images: Sequence[Image], file: Path) -> Path:
    if len(images) > 1:
        raise Unusable(f"--overlay: {file} is the name of one file, but there are {len(images)} images: name a folder")
    if file.suffix.lower() != ".png":
        raise Unusable(
            f"--overlay: {file}: overlays are PNG files; name it {file.with_suffix('.png')}, or name a folder"
        )
    return file


def _stem(image: Image) -> str:
    return "stdin" if image.path == STDIN else image.path.stem


def _expand(word: str, recursive: bool) -> Iterator[Image]:
    path = Path(word)
    if path.is_dir():
        yield from _in_folder(path, recursive)
    elif path.exists():
        yield Image(path.absolute() if path == STDIN else path)
    else:
        matches = sorted(glob.glob(word, recursive=True)) if glob.has_magic(word) else []
        if not matches:
            raise Unusable(f"{word}: no such file or folder")
        for match in matches:
            yield from _expand(match, recursive)


def _in_folder(root: Path, recursive: bool) -> Iterator[Image]:
    for folder, below, names in os.walk(root, onerror=_raise):
        below[:] = sorted(n for n in below if not n.startswith(".") and n not in FOREIGN_FOLDERS) if recursive else []
        paths = [Path(folder, name) for name in sorted(names)]
        yield from (Image(path, path.parent.relative_to(root)) for path in paths if _is_image(path))


def _is_image(path: Path) -> bool:
    """Hidden files are left out: macOS puts `._photo.jpg`, which is no image, beside `photo.jpg`."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _raise(error: OSError) -> None:
    raise error
