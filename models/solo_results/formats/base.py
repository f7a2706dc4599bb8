"""What all formats share: the records that they read and write, the classes of a run, and options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol

from solo_results.errors import UnreadableFile
from solo_results.types import Instance, Result, RleMask

if TYPE_CHECKING:  # the command's --help needs no numpy
    from solo_results.runs import ObjectRuns

MAX_FILE_BYTES = 256 << 20
MAX_SIDE = 65_535
MAX_PIXELS = 1 << 27
MAX_CLASS_ID = 65_535
"""Limits of what is read, checked before anything of that size is allocated."""

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".jp2"}
)

ImageSize = tuple[int, int]
"""`(H, W)` in pixels."""


@dataclass(frozen=True, slots=True)
class NamedResult:
    """The result of one image. file: the image's name, with its folders where it has some, with `/` between them."""

    file: str
    result: Result


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file to write. name: relative, with `/` between folders; empty for the only file of a format of one file."""

    name: str
    content: bytes


class Classes:
    """The classes of a run, by id. Files without ids get them in the order in which their labels occur."""

    def __init__(self, names: Sequence[str] | None = None) -> None:
        """names: all classes; a file with any other is refused. None: whatever occurs."""
        self._names: dict[int, str] = dict(enumerate(names or ()))
        self._ids = {name: class_id for class_id, name in reversed(self._names.items())}
        self.are_given = names is not None

    def names(self) -> list[str]:
        """All names in the order of ids; an id that did not occur is called `class 3`."""
        return [self._names.get(class_id, f"class {class_id}") for class_id in range(max(self._names, default=-1) + 1)]

    def ids(self) -> dict[str, int]:
        """The known names with their ids, in the order of ids."""
        return {name: class_id for class_id, name in sorted(self._names.items())}

    def id_of(self, label: str) -> int:
        """The id of a label; a new one where it has none.

        Raises:
            LookupError: the classes are given, and it is not one of them.
        """
        if label not in self._ids:
            if self.are_given:
                raise LookupError(f"unknown class {label[:60]!r}")
            self.add(max(self._names, default=-1) + 1, label)
        return self._ids[label]

    def name_of(self, class_id: int) -> str:
        """The label of an id.

        Raises:
            LookupError: there is none.
        """
        if class_id not in self._names:
            raise LookupError(f"unknown class {class_id}: {len(self._names)} class names are known")
        return self._names[class_id]

    def add(self, class_id: int, label: str) -> None:
        """A label and its id, as a file has them.

        Raises:
            LookupError: the id has another label; or the classes are given, and this is not one of them.
        """
        known = self._names.get(class_id)
        if known is None and not self.are_given:
            self._names[class_id] = label
            self._ids.setdefault(label, class_id)
        elif known != label:
            raise LookupError(
                f"class {class_id} is {label[:60]!r} here, and " + (f"{known!r} elsewhere" if known else "unknown")
            )


class Images(Protocol):
    """The images that results belong to, where they are at hand."""

    def size(self, file: str) -> ImageSize | None:
        """The size of an image by its name, with or without suffix and folders; None where it is not there."""
        ...

    def full_name(self, file: str) -> str | None:
        """Its name with folders and suffix, relative to the folder of images; None where it is not there."""
        ...

    def numbered(self, number: int) -> str | None:
        """The name of the image whose name ends in this number; None where none or several do."""
        ...


class NoImages:
    """No images are at hand."""

    def size(self, file: str) -> ImageSize | None:
        """None."""
        return None

    def full_name(self, file: str) -> str | None:
        """None."""
        return None

    def numbered(self, number: int) -> str | None:
        """None."""
        return None


@dataclass(slots=True)
class Context:
    """What the reading and writing of one run share. tolerance: pixels, of `polygons_of_counts`; note: tells the user of a loss."""

    classes: Classes = field(default_factory=Classes)
    images: Images = field(default_factory=NoImages)
    tolerance: float = 0.0
    note: Callable[[str], None] = lambda _: None


class Format(Protocol):
    """One format; a module of this package has these functions."""

    def write(self, images: Iterable[NamedResult], context: Context) -> Iterator[WrittenFile]:
        """The files of a run, one after the other, as far as possible while `images` is read.

        Raises:
            Unwritable: the format cannot hold these results.
        """
        ...

    def read(self, file: str, content: bytes, context: Context) -> list[NamedResult]:
        """The results in one file. file: its name, for messages and as the image's name where the format has none.

        Raises:
            UnreadableFile: it is not valid.
        """
        ...


def instance_of(runs: ObjectRuns, label: str, class_id: int, score: float) -> Instance:
    """The record of a mask, with its box and area."""
    return Instance(label, class_id, score, runs.box_xywh, runs.area, RleMask(runs.size, runs.counts))


def result_of(size: ImageSize, instances: Iterable[Instance]) -> Result:
    """The record of an image, best instance first; it does not name the model."""
    ordered = tuple(sorted(instances, key=lambda instance: -instance.score))
    return Result(size[1], size[0], "", "", {}, ordered)


def beside(file: str, suffix: str) -> str:
    """The name of an image's own file: with its folders, as far as they do not lead elsewhere, and this suffix."""
    printable = "".join(character for character in file.replace("\\", "/") if character.isprintable())
    parts = [part for part in printable.split("/") if part not in ("", ".", "..") and ":" not in part]
    path = PurePosixPath(*parts or ("image",))
    return str(
        path.with_suffix(suffix) if path.suffix.lower() in IMAGE_SUFFIXES else path.with_name(path.name + suffix)
    )


def image_name(file: str, context: Context) -> str:
    """The name of the image whose results are in a file of its own: that of the image at hand, else without suffix."""
    return context.images.full_name(file) or str(PurePosixPath(file).with_suffix(""))


def check_size(size: ImageSize, file: str, place: str) -> ImageSize:
    """The size itself. Raises UnreadableFile: it is over a limit, or without pixels."""
    height, width = size
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise UnreadableFile(
            file, place, f"an image of {width} x {height} pixels; {MAX_SIDE} a side and {MAX_PIXELS} in all are allowed"
        )
    return size


def size_from_images(file: str, context: Context, place: str = "") -> ImageSize:
    """The size of an image that the format does not have. Raises UnreadableFile: the image is not at hand."""
    size = context.images.size(file)
    if size is None:
        raise UnreadableFile(
            file, place, "the image is needed for its size, and is not in the folder of images: --images DIR"
        )
    return check_size(size, file, place)
