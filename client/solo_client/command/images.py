"""Turns the command line's arguments into the paths of images and videos, and into the paths of their overlays."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from solo_client.command.errors import Unusable
from solo_client.command.video.signature import has_video_suffix, is_camera, is_video_file

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp"})
STDIN = Path("-")
FOREIGN_FOLDERS = frozenset({"@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found"})
"""Folders that file servers and archives create, for thumbnails and deleted files."""


class Readable(Protocol):
    """Bytes that come from somewhere."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, at least one before the end."""
        ...


@dataclass(frozen=True, slots=True)
class ImagePath:
    """An image or a video to segment.

    path: its file, STDIN, or a camera; below: its folder, relative to the folder given on the command line; stream: its bytes, if
    they do not come from the file.
    """

    path: Path
    below: Path = Path()
    is_video: bool = False
    stream: Readable | None = None


def find_images(words: Iterable[str], *, recursive: bool = False, videos: bool = False) -> list[ImagePath]:
    """The images and videos in the order of `words`, without duplicates.

    A file is taken whatever its name; its content says whether it is a video. `-` is standard input. A folder stands for the
    images in it, and with `videos` for its videos (with `recursive` also in its subfolders), by suffix, sorted. A pattern is
    expanded as by a shell (`**` matches across folders).

    Raises:
        Unusable: a word matches nothing, or there are no images at all.
        OSError: a folder cannot be read.
    """
    found: dict[Path, ImagePath] = {}
    for word in words:
        for image in [ImagePath(STDIN)] if word == "-" else _expand(word, recursive, videos):
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
    if not destination.is_dir() and destination.suffix.lower() in {".mp4", *SUFFIXES}:
        return [_overlay_file(images, destination)]
    stems = Counter((image.below, _stem(image)) for image in images)
    files = [
        destination
        / p.below
        / f"{_stem(p) if stems[p.below, _stem(p)] == 1 else p.path.name}.overlay{_overlay_suffix(p)}"
        for p in images
    ]
    refuse_shared(images, files, "overlay", "segment them in two runs")
    return files


def _overlay_file(images: Sequence[ImagePath], file: Path) -> Path:
    if len(images) > 1:
        kind = "videos" if all(image.is_video for image in images) else "images"
        raise Unusable(f"--overlay: {file} is one file, but there are {len(images)} {kind}: give a folder")
    suffix = _overlay_suffix(images[0])
    if file.suffix.lower() != suffix:
        which = "overlays of videos are MP4" if images[0].is_video else "overlays are PNG"
        raise Unusable(f"--overlay: {file}: {which} files; use {file.with_suffix(suffix)}, or a folder")
    return file


def _overlay_suffix(image: ImagePath) -> str:
    return ".mp4" if image.is_video else ".png"


def _stem(image: ImagePath) -> str:
    return "stdin" if image.path == STDIN else image.path.stem


def _expand(word: str, recursive: bool, videos: bool) -> Iterator[ImagePath]:
    path = Path(word)
    if path.is_dir():
        yield from _in_folder(path, recursive, videos)
    elif path.exists() or is_camera(path):
        path = path.absolute() if path == STDIN else path
        yield ImagePath(path, is_video=is_camera(path) or is_video_file(path))
    else:
        matches = sorted(glob.glob(word, recursive=True)) if glob.has_magic(word) else []
        if not matches:
            raise Unusable(f"{word}: no such file or folder")
        for match in matches:
            yield from _expand(match, recursive, videos)


def _in_folder(root: Path, recursive: bool, videos: bool) -> Iterator[ImagePath]:
    for folder, below, names in os.walk(root, onerror=_raise):
        below[:] = sorted(n for n in below if not n.startswith(".") and n not in FOREIGN_FOLDERS) if recursive else []
        paths = [Path(folder, name) for name in sorted(names)]
        for path in paths:
            is_video = videos and has_video_suffix(path)
            if (is_video or path.suffix.lower() in SUFFIXES) and _is_visible_file(path):
                yield ImagePath(path, path.parent.relative_to(root), is_video=is_video)


def _is_visible_file(path: Path) -> bool:
    """Hidden files are skipped: macOS puts `._photo.jpg`, which is not an image, beside `photo.jpg`."""
    return not path.name.startswith(".") and path.is_file()


def _raise(error: OSError) -> None:
    raise error
