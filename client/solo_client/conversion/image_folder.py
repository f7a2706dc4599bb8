"""The images that results belong to: their names and sizes, from the folder of `--images`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Hashable
from pathlib import Path, PurePosixPath

from solo_client.command.errors import Unusable
from solo_client.command.images import find_images
from solo_client.errors import UnreadableFile

_NUMBER_AT_END = re.compile(r"([0-9]{1,15})\Z")


class ImageFolder:
    """Finds an image by its name with or without folders and suffix; see `solo_results.formats.base.Images`."""

    def __init__(self, folder: Path) -> None:
        """Raises Unusable: not a folder, or without images; or Pillow, which reads sizes, is not installed."""
        if not folder.is_dir():
            raise Unusable(f"--images: {folder}: no such folder")
        self._folder = folder
        self._by_key: dict[Hashable, str | None] = {}
        for image in find_images([str(folder)], recursive=True):
            self._add(image.path.relative_to(folder).as_posix())
        self._sizes: dict[str, tuple[int, int]] = {}
        try:
            self._size_of = importlib.import_module("solo_results.image_size").image_size
        except ModuleNotFoundError as error:
            raise Unusable(f"--images needs Pillow ({error}): pip install pillow") from error

    def size(self, file: str) -> tuple[int, int] | None:
        """`(H, W)` after EXIF orientation. Raises UnreadableFile: the image is damaged."""
        name = self.full_name(file)
        if name is None:
            return None
        if name not in self._sizes:
            path = self._folder / name
            try:
                self._sizes[name] = self._size_of(path)
            except UnreadableFile as error:
                raise UnreadableFile(file, "", f"its image {path} cannot be read") from error
        return self._sizes[name]

    def full_name(self, file: str) -> str | None:
        """The image with this path, else the only one with this path without suffix, else with this name."""
        path = PurePosixPath(file)
        for key in (str(path), _bare(path), path.name, path.stem):
            if (name := self._by_key.get(key)) is not None:
                return name
        return None

    def numbered(self, number: int) -> str | None:
        """The only image whose name ends in this number."""
        return self._by_key.get(number)

    def _add(self, name: str) -> None:
        path = PurePosixPath(name)
        number = _NUMBER_AT_END.search(path.stem)
        keys: set[Hashable] = {name, _bare(path), path.name, path.stem, *([int(number[1])] if number else [])}
        for key in keys:
            self._by_key[key] = None if key in self._by_key and key != name else name


def _bare(path: PurePosixPath) -> str:
    return str(path.with_suffix(""))
