"""The files to convert, and the class names that lie beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from solo_results.errors import UnreadableFile
from solo_results.formats.base import MAX_FILE_BYTES

from solo_client.command.errors import Unusable
from solo_client.command.images import FOREIGN_FOLDERS

SUFFIXES = frozenset({".json", ".jsonl", ".txt", ".png", ".csv"})
CLASSES_FILE = "classes.txt"
COCO = "coco"
_CLASSES_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. name: relative to the folder on the command line, with `/` between folders."""

    path: Path
    name: str

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            UnreadableFile: it cannot be read, or is larger than MAX_FILE_BYTES.
        """
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise UnreadableFile(str(self.path), "", error.strerror or str(error)) from error
        if len(content) > MAX_FILE_BYTES:
            raise UnreadableFile(str(self.path), "", f"is larger than {MAX_FILE_BYTES >> 20} MiB")
        return content


def find_sources(words: Iterable[str]) -> list[SourceFile]:
    """Files as they are given; of folders, and the folders in them, all files with a suffix of SUFFIXES, sorted.

    Raises:
        Unusable: there is no such file, or none at all.
        OSError: a folder cannot be read.
    """
    found: dict[Path, SourceFile] = {}
    for word in words:
        path = Path(word)
        if not path.exists():
            raise Unusable(f"{word}: no such file or folder")
        for source in _in_folder(path) if path.is_dir() else [SourceFile(path, path.name)]:
            found.setdefault(source.path.resolve(), source)
    if not found:
        raise Unusable("no files to convert; a folder is searched for " + ", ".join(sorted(SUFFIXES)))
    return list(found.values())


def class_names(word: str | None, sources: Sequence[SourceFile]) -> tuple[str, ...] | None:
    """The names of `--classes`: a file with a name a line, `coco`, or names separated by commas; else those of a `classes.txt`
    beside the sources, or in a folder above; else None.

    Raises:
        Unusable: the file cannot be read, or a name is empty or there twice.
    """
    if word is None:
        files = sorted({file for source in sources if (file := _classes_file(source)) is not None})
        if not files:
            return None
        names = [_names_of_file(path) for path in files]
        if any(one != names[0] for one in names):
            raise Unusable(f"{files[0]} and others have different class names; convert the folders one by one")
        return names[0]
    if word == COCO:
        from solo_results.coco import COCO_IDS

        return tuple(COCO_IDS)
    return _names_of_file(Path(word)) if Path(word).is_file() else _checked(word.split(","), "--classes")


def _classes_file(source: SourceFile) -> Path | None:
    """The nearest file of class names, from the folder of a text file up to the folder on the command line."""
    if source.path.suffix.lower() != ".txt":
        return None
    folders = list(source.path.parents)[: len(PurePosixPath(source.name).parts)]
    return next((file for folder in folders if (file := folder / CLASSES_FILE).is_file()), None)


def _names_of_file(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            text = file.read(_CLASSES_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"{path}: cannot be read as class names, one a line") from error
    return _checked(text.rstrip().splitlines(), str(path))


def _checked(names: Sequence[str], where: str) -> tuple[str, ...]:
    stripped = tuple(name.strip() for name in names)
    if not all(stripped) or len(set(stripped)) < len(stripped):
        raise Unusable(f"{where}: class names must not be empty, and must differ")
    return stripped


def _in_folder(root: Path) -> Iterator[SourceFile]:
    for folder, below, names in os.walk(root, onerror=_raise):
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in FOREIGN_FOLDERS)
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in SUFFIXES and name != CLASSES_FILE and not name.startswith(".") and path.is_file():
                yield SourceFile(path, path.relative_to(root).as_posix())


def _raise(error: OSError) -> None:
    raise error
