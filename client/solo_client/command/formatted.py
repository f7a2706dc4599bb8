"""Writes the results of `solo segment` in a file format of `solo_results.formats`, as `solo convert` does.

Results are kept in a temporary file until the run is complete, since many formats need all of them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from tempfile import SpooledTemporaryFile
from types import TracebackType

from solo_results.formats import FORMATS, Classes, Context, NamedResult, OpenedFormat, open_format

from solo_client import wire
from solo_client.command.errors import Unusable
from solo_client.command.images import STDIN
from solo_client.command.output import SPOOLED_BYTES, Failed, Segmented
from solo_client.conversion.destination import Destination
from solo_client.conversion.sources import SourceFile

OTHER_FORMATS = tuple(name for name in FORMATS if name not in ("json", "coco"))
"""The formats that are written here; `command.output` writes json, jsonl and coco."""


class FormattedOutput:
    """An `Output` in a file format; what failed is left out. Nothing is written if its `with` ends before `finish`."""

    def __init__(
        self,
        name: str,
        output: Path | None,
        inputs: Sequence[Path],
        class_names: Sequence[str],
        note: Callable[[str], None],
    ) -> None:
        """output: the file or folder, or None for stdout; inputs: the images, which are not replaced; note: called for losses.

        Raises:
            Unusable: `output` does not fit the format, or the format needs Pillow.
        """
        self._name, self._facts, self._note = name, FORMATS[name], note
        self._format = _opened(name)
        self._context = Context(Classes(class_names), note=note)
        if output is None and not self._facts.one_file:
            raise Unusable(f"--format {name} needs a folder: -o FOLDER")
        sources = [SourceFile(path, path.name) for path in inputs]
        self._destination = None if output is None else Destination(output, self._facts, sources)
        self._root = _shared_folder(inputs)
        self._spool = SpooledTemporaryFile(SPOOLED_BYTES, "w+", encoding="utf-8")  # noqa: SIM115  # closed by __exit__

    def __enter__(self) -> FormattedOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()

    def add(self, done: Segmented | Failed) -> None:
        """Keep the next result."""
        if isinstance(done, Segmented):
            self._spool.write(json.dumps([self._name_of(done), done.result.to_dict()], allow_nan=False) + "\n")

    def finish(self) -> None:
        """Write the files. Raises Unusable if one cannot be written."""
        self._spool.seek(0)
        for file in self._format.write(self._results(), self._context):
            if self._destination is not None:
                self._destination.write(file)
            else:
                sys.stdout.write(file.content.decode())
        if self._facts.loses is not None:
            self._note(f"note: {self._name} does not keep {self._facts.loses}")

    def _results(self) -> Iterator[NamedResult]:
        for line in self._spool:
            name, result = json.loads(line)
            yield NamedResult(name, wire.parse_result(result))

    def _name_of(self, done: Segmented) -> str:
        """The name of the image, below the folder that all inputs share; frame 7 of a.mp4 is a_000007.png."""
        if done.image == STDIN:
            return "stdin" if done.frame is None else f"stdin_{done.frame.number:06}.png"
        path = PurePosixPath(os.path.relpath(done.image, self._root) if done.image.is_absolute() else done.image)
        return str(path if done.frame is None else path.with_name(f"{path.stem}_{done.frame.number:06}.png"))


def _shared_folder(inputs: Sequence[Path]) -> str:
    absolute = [path.parent for path in inputs if path.is_absolute()]
    return os.path.commonpath(absolute) if absolute else "."


def _opened(name: str) -> OpenedFormat:
    try:
        return open_format(name)
    except ModuleNotFoundError as error:
        raise Unusable(f"--format {name} needs {error.name}: pip install numpy pillow") from error
