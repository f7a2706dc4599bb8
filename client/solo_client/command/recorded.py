"""The lines of an interrupted run, for `--resume`: its results are taken from the file, in order, instead of computed again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from solo_results.types import Result

from solo_client import wire
from solo_client.command.errors import Unusable
from solo_client.command.output import Failed, FramePosition, Segmented
from solo_client.errors import UnexpectedAnswer
from solo_client.field import Field

_CHUNK_BYTES = 1 << 20
_WAY_OUT = "run it with the same arguments, or without --resume"


class Recorded:
    """Reads a file of JSON lines one by one, as the run asks for them. A torn last line is cut off the file."""

    def __init__(self, file: Path) -> None:
        """Raises Unusable if the file cannot be read or cut. A file that does not exist has no lines."""
        self._file, self._number = file, 0
        self._model: tuple[str, str] | None = None
        try:
            self._size = _cut_torn_line(file) if file.exists() else 0
        except OSError as error:
            raise Unusable(f"--resume: {file}: {error.strerror}") from error
        self._lines = self._read()
        self._next = next(self._lines, None)

    def take(self, path: Path, image_id: int, frame: FramePosition | None) -> Segmented | Failed | None:
        """The next result, which must be that of this image or frame; None after the last one.

        frame: None for an image, or for the failure of a video.

        Raises:
            Unusable: the next line is no result, or that of something else.
        """
        if self._next is None:
            return None
        self._number += 1
        entry, self._next = self._next, next(self._lines, None)
        position = (str(path), None, None) if frame is None else (str(path), frame.number, frame.time_s)
        try:
            value = json.loads(entry)
            if not isinstance(value, dict) or (value.get("file"), value.get("frame"), value.get("time_s")) != position:
                raise self._mismatch(f"is not the result of {_named(path, frame)}; {_WAY_OUT}")
            return self._parse(value, path, image_id, frame)
        except (ValueError, UnexpectedAnswer) as error:
            raise self._mismatch(f"is damaged: {error}") from error

    def check_model(self, result: Result) -> None:
        """Raises Unusable if a new result is of another model than the recorded ones."""
        model = (result.model_name, result.model_version)
        if self._model is not None and model != self._model:
            recorded = " ".join(self._model)
            raise Unusable(f"--resume: {self._file} is by the model {recorded}, not by {' '.join(model)}")

    def finish(self) -> None:
        """Raises Unusable if there are lines that the run did not ask for."""
        if self._next is not None:
            raise Unusable(f"--resume: {self._file} has more results than these inputs; {_WAY_OUT}")

    def check_tracks(self, done: Segmented, ids: tuple[int, ...] | None) -> None:
        """Raises Unusable if a recorded result has other track ids than this run gives it."""
        if (done.track_ids or None) != (ids or None):
            raise Unusable(f"--resume: {self._file}: {_named(done.image, done.frame)} has other track ids; {_WAY_OUT}")

    def _mismatch(self, problem: str) -> Unusable:
        return Unusable(f"--resume: line {self._number} of {self._file} {problem}")

    def _parse(
        self, value: dict[str, object], path: Path, image_id: int, frame: FramePosition | None
    ) -> Segmented | Failed:
        error = value.get("error")
        if isinstance(error, dict):
            return Failed(path, str(error.get("detail", error.get("title"))), error, frame)
        result = wire.parse_result(value)
        self._model = (result.model_name, result.model_version)
        return Segmented(path, image_id, result, frame, _track_ids(value))

    def _read(self) -> Iterator[bytes]:
        if self._size:
            with self._file.open("rb") as lines:
                yield from lines


def _track_ids(value: dict[str, object]) -> tuple[int, ...] | None:
    instances = Field("", value).member("instances").items()
    if not any("track_id" in instance.members() for instance in instances):
        return None if instances else ()
    return tuple(instance.member("track_id").integer() for instance in instances)


def _cut_torn_line(file: Path) -> int:
    """Cut what follows the last line end; returns the size that is left, in bytes."""
    with file.open("r+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _CHUNK_BYTES)
            stream.seek(start)
            found = stream.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        stream.truncate(end)
    return end


def _named(path: Path, frame: FramePosition | None) -> str:
    return str(path) if frame is None else f"{path}, frame {frame.number}"
