"""Writes the results of `solo segment`: lines one by one, or one JSON document, complete or not at all."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO, Literal, Protocol

from solo_results.types import Result

from solo_client.command.errors import Unusable
from solo_client.errors import UnknownCategory

SPOOLED_BYTES = 16 << 20  # an incomplete document is kept in memory up to this size, beyond it in a file

OutputFormat = Literal["json", "jsonl", "coco"]


@dataclass(frozen=True, slots=True)
class Segmented:
    """The result for one image."""

    image: Path
    image_id: int
    result: Result


@dataclass(frozen=True, slots=True)
class Failed:
    """An image without a result. message, problem: see `ImageFailed`."""

    image: Path
    message: str
    problem: Mapping[str, object]


class Output(Protocol):
    """Takes the images one after the other. A document that is not finished when its `with` ends is not written."""

    def add(self, done: Segmented | Failed) -> None:
        """Take the next image. Raises Unusable if it cannot be written."""
        ...

    def finish(self) -> None:
        """Complete the output. Raises Unusable if it cannot be written."""
        ...

    def __enter__(self) -> Output: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_output(
    output_format: OutputFormat, file: Path | None, *, alone: bool, category_ids: Mapping[str, int] | None = None
) -> Output:
    """An output in this format to a file, or to stdout for None. alone: for one image, so that JSON is not a list."""
    if output_format == "jsonl":
        return _Lines(file)
    return _Document(
        file, alone=alone and output_format == "json", coco=output_format == "coco", category_ids=category_ids
    )


class _Lines:
    """One JSON object per line, written at once; the file is created with the first line."""

    def __init__(self, file: Path | None) -> None:
        self._file, self._stream = file, None if file is not None else sys.stdout

    def __enter__(self) -> _Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None and self._stream is not None:
            self._stream.close()

    def add(self, done: Segmented | Failed) -> None:
        try:
            if self._stream is None and self._file is not None:
                self._stream = self._file.open("w", encoding="utf-8")
        except OSError as error:
            raise Unusable(f"cannot write {self._file}: {error.strerror}") from error
        if self._stream is not None:
            _write(self._stream, [_dump(_entry(done)), "\n"])

    def finish(self) -> None:
        """Every line is already written."""


class _Document:
    """One JSON value: a result, a list of results, or COCO results. Spooled until it is complete."""

    def __init__(
        self, file: Path | None, *, alone: bool, coco: bool, category_ids: Mapping[str, int] | None = None
    ) -> None:
        self._file, self._alone, self._coco, self._category_ids = file, alone, coco, category_ids
        self._spool = SpooledTemporaryFile(SPOOLED_BYTES, "w+", encoding="utf-8")  # noqa: SIM115  # closed by __exit__
        self._is_empty = True

    def __enter__(self) -> _Document:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()

    def add(self, done: Segmented | Failed) -> None:
        for entry in self._entries(done):
            self._spool.write(("" if self._alone else "[" if self._is_empty else ", ") + _dump(entry))
            self._is_empty = False

    def finish(self) -> None:
        """Write the document; nothing is written if the only image failed."""
        if self._is_empty and self._alone:
            return
        self._spool.write("\n" if self._alone else "[]\n" if self._is_empty else "]\n")
        self._spool.seek(0)
        if self._file is None:
            _write(sys.stdout, iter(lambda: self._spool.read(1 << 20), ""))
        else:
            write_file(self._spool, self._file)

    def _entries(self, done: Segmented | Failed) -> Iterable[object]:
        if self._coco:
            return self._coco_results(done) if isinstance(done, Segmented) else []
        if not self._alone:
            return [_entry(done)]
        return [done.result.to_dict()] if isinstance(done, Segmented) else []

    def _coco_results(self, done: Segmented) -> Iterable[object]:
        try:
            return done.result.to_coco(done.image_id, self._category_ids)
        except UnknownCategory as error:
            raise Unusable(f"--categories: {done.image}: {error}") from error


def check_writable(output: Path | None, overlays: Iterable[Path | None]) -> None:
    """Check before any work that the output can be written; create the folders for overlays.

    Raises:
        Unusable: the output path is a folder or its parent does not exist, or a folder for overlays cannot be created.
    """
    if output is not None and output.is_dir():
        raise Unusable(f"-o: {output} is a folder")
    if output is not None and not output.parent.is_dir():
        raise Unusable(f"-o: {output.parent}: no such folder")
    for folder in dict.fromkeys(overlay.parent for overlay in overlays if overlay is not None):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unusable(f"--overlay: {folder}: {error.strerror}") from error


def write_file(content: bytes | IO[str], path: Path) -> None:
    """Write a temporary file and rename it, so that readers never see half a file.

    A device or a pipe (`/dev/null`) is written directly; a symbolic link is kept and its target replaced.

    Raises:
        Unusable: it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            _fill(path, content)
        else:
            _replace(content, path.resolve())
    except OSError as error:
        raise Unusable(f"cannot write {path}: {error.strerror}") from error


def _replace(content: bytes | IO[str], path: Path) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _fill(part, content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _fill(path: Path, content: bytes | IO[str]) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    with path.open("w", encoding="utf-8") as file:
        shutil.copyfileobj(content, file)


def _write(stream: IO[str], texts: Iterable[str]) -> None:
    """Write to an open stream and flush it.

    Raises:
        Unusable: it cannot be written.
    """
    try:
        stream.writelines(texts)
        stream.flush()
    except OSError as error:
        if stream is sys.stdout:
            # The reader has closed the pipe (`| head`). Without this Python would report it again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Unusable(f"cannot write to stdout: {error.strerror}") from error
        raise Unusable(f"cannot write {stream.name}: {error.strerror}") from error


def _entry(done: Segmented | Failed) -> dict[str, object]:
    """The result, or the problem, of one image among several."""
    file: dict[str, object] = {"file": str(done.image)}
    return file | (done.result.to_dict() if isinstance(done, Segmented) else {"error": dict(done.problem)})


def _dump(value: object) -> str:
    return json.dumps(value, allow_nan=False)
