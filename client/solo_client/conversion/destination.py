"""Where converted results are written: one file, or a folder with a file an image. Never over an input, never twice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from solo_results.formats import FormatFacts, WrittenFile

from solo_client.command.errors import Unusable
from solo_client.command.output import write_file
from solo_client.conversion.sources import SourceFile


class Destination:
    """Writes the files of one run."""

    def __init__(self, output: Path, facts: FormatFacts, sources: Iterable[SourceFile]) -> None:
        """output: for a format of one file, or of one image by its suffix, the file; else the folder.

        Raises:
            Unusable: it is a folder where a file is needed, or the other way round.
        """
        self._output, self._sources = output, {source.path.resolve() for source in sources}
        self._is_file = facts.one_file or (output.suffix.lower() == facts.suffix and not output.is_dir())
        self._written: set[Path] = set()
        if facts.one_file and output.is_dir():
            raise Unusable(f"-o: {output} is a folder; this format is one file")
        if not self._is_file and output.exists() and not output.is_dir():
            raise Unusable(f"-o: {output} is a file; this format is a folder with a file an image")
        if self._is_file:
            if not output.parent.is_dir():
                raise Unusable(f"-o: {output.parent}: no such folder")
            self._refuse_input(output)

    def write(self, file: WrittenFile) -> None:
        """Write one file.

        Raises:
            Unusable: it would replace an input or a file of the same run, or cannot be written.
        """
        path = self._output if self._is_file else self._output / file.name
        self._refuse_input(path)
        if path.resolve() in self._written:
            way_out = "-o must be a folder" if self._is_file else "two images have the same name"
            raise Unusable(f"{path} would be written twice: {way_out}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unusable(f"-o: {path.parent}: {error.strerror}") from error
        write_file(file.content, path)
        self._written.add(path.resolve())

    def _refuse_input(self, path: Path) -> None:
        if path.resolve() in self._sources:
            raise Unusable(f"-o: {path} is an input, which would be lost")
