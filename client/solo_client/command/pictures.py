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
class Picture:
    """An image to do. path: its file, or STDIN; below: its folder, seen from the folder that was named."""

    path: Path
    below: Path = Path()


def find_pictures(words: Iterable[str], *, recursive: bool = False) -> list[Picture]:
    """Images in the order of `words`, each once.

    A file is taken whatever its name, `-` is standard input; a folder stands for the images directly in it (`recursive`: and in
    the folders below it), by suffix, sorted; a pattern for what a shell would make of it (`**` crosses folders).

    Raises:
        Unusable: a word names nothing, or there is no image at all.
        OSError: a folder cannot be read.
    """
    found: dict[Path, Picture] = {}
    for word in words:
        for picture in [Picture(STDIN)] if word == "-" else _expand(word, recursive):
            found.setdefault(picture.path, picture)
    if not found:
        raise Unusable("no images found" + ("" if recursive else "; --recursive also looks into the folders below"))
    return list(found.values())


def overlay_files(pictures: Sequence[Picture], place: Path) -> list[Path]:
    """Where the overlays go. `place` is a file for one image if its name ends in .png, else a folder.

    In a folder they are `<stem>.overlay.png`, in folders as the images below the folder that was named; images of the same stem
    keep their suffix: `<name>.overlay.png`.

    Raises:
        Unusable: a file name for several images or of another format; two images would share a file, named; an overlay would
            replace an image.
    """
    files = _overlay_places(pictures, place)
    paths = {picture.path.absolute() for picture in pictures}
    for picture, file in zip(pictures, files, strict=True):
        if file.absolute() in paths:
            raise Unusable(f"--overlay: the overlay of {picture.path} would replace the image {file}")
    return files


def refuse_shared(pictures: Sequence[Picture], keys: Sequence[object], name: str, way_out: str) -> None:
    """Raises Unusable where two images have the same key; way_out: what the caller can do."""
    first: dict[object, Path] = {}
    for picture, key in zip(pictures, keys, strict=True):
        if key in first:
            raise Unusable(f"{first[key]} and {picture.path} would share the {name} {key}; {way_out}")
        first[key] = picture.path


def _overlay_places(pictures: Sequence[Picture], place: Path) -> list[Path]:
    if place == STDIN:
        raise Unusable("--overlay: needs the name of a file or a folder, not -")
    if not place.is_dir() and place.suffix.lower() in SUFFIXES:
        return [_overlay_file(pictures, place)]
    stems = Counter((picture.below, _stem(picture)) for picture in pictures)
    files = [
        place / p.below / f"{_stem(p) if stems[p.below, _stem(p)] == 1 else p.path.name}.overlay.png" for p in pictures
    ]
    refuse_shared(pictures, files, "overlay", "segment them in two runs")
    return files


def _overlay_file(pictures: Sequence[Picture], file: Path) -> Path:
    if len(pictures) > 1:
        raise Unusable(
            f"--overlay: {file} is the name of one file, but there are {len(pictures)} images: name a folder"
        )
    if file.suffix.lower() != ".png":
        raise Unusable(
            f"--overlay: {file}: overlays are PNG files; name it {file.with_suffix('.png')}, or name a folder"
        )
    return file


def _stem(picture: Picture) -> str:
    return "stdin" if picture.path == STDIN else picture.path.stem


def _expand(word: str, recursive: bool) -> Iterator[Picture]:
    path = Path(word)
    if path.is_dir():
        yield from _in_folder(path, recursive)
    elif path.exists():
        yield Picture(path.absolute() if path == STDIN else path)
    else:
        matches = sorted(glob.glob(word, recursive=True)) if glob.has_magic(word) else []
        if not matches:
            raise Unusable(f"{word}: no such file or folder")
        for match in matches:
            yield from _expand(match, recursive)


def _in_folder(root: Path, recursive: bool) -> Iterator[Picture]:
    for folder, below, names in os.walk(root, onerror=_raise):
        below[:] = sorted(n for n in below if not n.startswith(".") and n not in FOREIGN_FOLDERS) if recursive else []
        paths = [Path(folder, name) for name in sorted(names)]
        yield from (Picture(path, path.parent.relative_to(root)) for path in paths if _is_picture(path))


def _is_picture(path: Path) -> bool:
    """Hidden files are left out: macOS puts `._photo.jpg`, which is no image, beside `photo.jpg`."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _raise(error: OSError) -> None:
    raise error
