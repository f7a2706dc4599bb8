"""The images on which an export is calibrated and checked: those of a folder, or two built-in ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from solo_models.spec import PreprocessSpec
from solo_server.errors import RequestError
from solo_server.pipeline.image import ImageLimits, decode, prepare
from solo_server.types import PreparedImage

from solo_export.progress import warn

BUILT_IN = Path(__file__).parent / "images"
BUILT_IN_NAME = "built-in"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".avif")


class ImagesError(ValueError):
    """No such folder, or no image in it can be decoded."""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Image files, in order of name. source: their name in reports; found: how many images there were to choose from."""

    source: str
    paths: tuple[Path, ...]
    found: int

    def prepared(self, spec: PreprocessSpec) -> Iterator[PreparedImage]:
        """Each image as the server prepares it, with masks at the network's input size. Damaged images are reported and skipped.

        Raises:
            ImagesError: none of them can be decoded.
        """
        count = 0
        for path in self.paths:
            if (rgb := decode_or_warn(path)) is None:
                continue
            count += 1
            image = prepare(rgb, spec)
            yield replace(image, geometry=replace(image.geometry, original_hw=image.geometry.resized_hw))
        if count == 0:
            raise ImagesError(f"{self.source}: none of {len(self.paths)} images can be decoded")


def decode_or_warn(path: Path) -> NDArray[np.uint8] | None:
    """The image `(H, W, 3)` RGB; a warning and `None` where it cannot be decoded."""
    try:
        return decode(path.read_bytes(), ImageLimits())
    except (RequestError, OSError) as problem:
        warn(f"skipped {path.name}: {problem}")
        return None


def counted(number: int, source: str) -> str:
    """A number of images as text: `2 built-in images`, `20 images from photos/`."""
    images = "image" if number == 1 else "images"
    return f"{number} built-in {images}" if source == BUILT_IN_NAME else f"{number} {images} from {source}/"


def find_images(folder: Path | None, limit: int) -> ImageSet:
    """At most `limit` images of a folder and its subfolders, evenly spaced in order of name; `None`: the built-in images.

    Raises:
        ImagesError: no such folder, or no images in it.
    """
    if folder is None:
        paths = tuple(sorted(BUILT_IN.glob("*.jpg")))
        return ImageSet(BUILT_IN_NAME, paths, len(paths))
    if not folder.is_dir():
        raise ImagesError(f"{folder}: no such folder")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ImagesError(f"{folder}: contains no images ({', '.join(SUFFIXES)})")
    step = max(1.0, len(found) / limit)
    chosen = [found[int(i * step)] for i in range(min(limit, len(found)))]
    return ImageSet(Path(os.path.abspath(folder)).name, tuple(chosen), len(found))
