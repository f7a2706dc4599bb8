"""The images on which an export is calibrated and checked: a folder's, or two that travel with the package."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from solo_models.spec import PreprocessSpec
from solo_server.errors import RequestError
from solo_server.pipeline.image import ImageLimits, decode, prepare
from solo_server.types import PreparedImage
from tqdm import tqdm

BUILT_IN = Path(__file__).parent / "images"
BUILT_IN_NAME = "built-in"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".avif")


class ImagesError(ValueError):
    """A folder that is not there, or holds no image that can be decoded."""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Files to go through, in order of name. source: how reports call them; found: how many there were to choose from."""

    source: str
    paths: tuple[Path, ...]
    found: int

    def prepared(self, spec: PreprocessSpec) -> Iterator[PreparedImage]:
        """Each image as the server would prepare it, wanted back at the network's own size; damaged ones are named and left out.

        Raises:
            ImagesError: none of them can be decoded.
        """
        count = 0
        for path in self.paths:
            try:
                rgb = decode(path.read_bytes(), ImageLimits())
            except (RequestError, OSError) as problem:
                tqdm.write(f"left out {path.name}: {problem}", file=sys.stderr)
                continue
            count += 1
            image = prepare(rgb, spec)
            yield replace(image, geometry=replace(image.geometry, original_hw=image.geometry.resized_hw))
        if count == 0:
            raise ImagesError(f"{self.source}: none of {len(self.paths)} images can be decoded")


def counted(number: int, source: str) -> str:
    """Images in words: `2 built-in images`, `20 images from photos/`."""
    images = "image" if number == 1 else "images"
    return f"{number} built-in {images}" if source == BUILT_IN_NAME else f"{number} {images} from {source}/"


def find_images(folder: Path | None, limit: int) -> ImageSet:
    """At most `limit` images of a folder and those below it, evenly spaced in order of name; `None`: the built-in ones.

    Raises:
        ImagesError: no such folder, or no images in it.
    """
    if folder is None:
        paths = tuple(sorted(BUILT_IN.glob("*.jpg")))
        return ImageSet(BUILT_IN_NAME, paths, len(paths))
    if not folder.is_dir():
        raise ImagesError(f"{folder}: is no folder")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ImagesError(f"{folder}: holds no images ({', '.join(SUFFIXES)})")
    step = max(1.0, len(found) / limit)
    chosen = [found[int(i * step)] for i in range(min(limit, len(found)))]
    return ImageSet(Path(os.path.abspath(folder)).name, tuple(chosen), len(found))
