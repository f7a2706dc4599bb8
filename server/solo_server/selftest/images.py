"""The images of a self-test: those of a folder or of the repository, and generated ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from solo_models.spec import PreprocessSpec

from solo_server.errors import RequestError, SettingsError
from solo_server.pipeline.image import ImageLimits, decode, prepare
from solo_server.types import PreparedImage, UInt8

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
REPOSITORY_FOLDERS = ("tests/images", "docs/figures", "docs/examples")
GENERATED_HW = ((480, 640), (640, 480), (301, 97))
COCO_HW = (480, 640)  # the usual size of COCO's images
SHAPES_PER_IMAGE = 40


@dataclass(frozen=True, slots=True)
class NamedImage:
    """name: the file's, without its folder, so that reports do not describe the machine."""

    name: str
    prepared: PreparedImage


def load_images(folder: Path | None, rules: PreprocessSpec) -> list[NamedImage]:
    """Images of `folder`, or without one those of the repository; then the generated ones.

    Raises:
        SettingsError: there is no such folder, it has no images, or one cannot be read.
    """
    if folder is not None and not folder.is_dir():
        raise SettingsError("--images: is not a folder")
    files = sorted(_files([folder] if folder is not None else _repository_folders()))
    if folder is not None and not files:
        raise SettingsError(f"--images: has no files with the endings {', '.join(ENDINGS)}")
    generated = [NamedImage(f"generated {h}x{w}", prepare(coloured_shapes(h, w), rules)) for h, w in GENERATED_HW]
    return [NamedImage(path.name, prepare(_read(path), rules)) for path in files] + generated


def coloured_shapes(height: int, width: int) -> UInt8:
    """An image `(height, width, 3)` of rectangles and ellipses over a gradient, the same on every machine."""
    random = np.random.default_rng(height * 10_007 + width)
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([y * 255 // height, x * 255 // width, (x + y) * 255 // (height + width)], axis=2).astype(np.uint8)
    for _ in range(SHAPES_PER_IMAGE):
        top, left = random.integers(0, height), random.integers(0, width)
        h, w = random.integers(8, max(9, height // 2)), random.integers(8, max(9, width // 2))
        inside = (np.abs(y - top) * 2 < h) & (np.abs(x - left) * 2 < w)
        if random.random() < 0.5:
            inside = ((y - top) * 2 / h) ** 2 + ((x - left) * 2 / w) ** 2 < 1
        pixels[inside] = random.integers(0, 256, 3)
    return pixels


def _repository_folders() -> list[Path]:
    """Empty where the package is installed without its repository."""
    root = Path(__file__).parents[3]
    return [root / name for name in REPOSITORY_FOLDERS] if (root / "pyproject.toml").is_file() else []


def _files(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        if folder.is_dir():
            yield from (path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)


def _read(path: Path) -> UInt8:
    try:
        return decode(path.read_bytes(), ImageLimits())
    except (RequestError, OSError) as problem:
        raise SettingsError(f"--images: {path.name}: {problem}") from problem
