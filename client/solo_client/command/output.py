"""What `solo segment` writes: JSON to a file, whole or not at all, or to stdout; overlays likewise."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from solo_client.command.errors import Unusable
from solo_client.types import Result


@dataclass(frozen=True, slots=True)
class Segmented:
    """One picture that gave a result."""

    picture: Path
    image_id: int
    result: Result


def json_text(segmented: Sequence[Segmented], *, alone: bool) -> str:
    """The answer itself for a picture that was asked for alone, else a list of answers, each with its `file`."""
    answers: list[dict[str, object]] = [{"file": str(s.picture)} | s.result.to_dict() for s in segmented]
    return _dump(segmented[0].result.to_dict() if alone else answers)


def coco_text(segmented: Sequence[Segmented]) -> str:
    """A COCO results file."""
    return _dump([entry for s in segmented for entry in s.result.to_coco(s.image_id)])


def check_writable(output: Path | None, overlays: Path | None) -> None:
    """Find out before any work is done whether there is a place for its results; makes the folder of overlays.

    Raises:
        Unusable: the place for the output is a folder or in none, the folder of overlays cannot be made.
    """
    if output is not None and output.is_dir():
        raise Unusable(f"-o: {output} is a folder")
    if output is not None and not output.parent.is_dir():
        raise Unusable(f"-o: {output.parent}: no such folder")
    if overlays is not None:
        try:
            overlays.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unusable(f"--overlay: {overlays}: {error.strerror}") from error


def write_text(text: str, output: Path | None) -> None:
    """Write to a file, or to stdout for None.

    Raises:
        Unusable: it cannot be written.
    """
    if output is not None:
        write_file(text.encode(), output)
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # The reader has gone (`| head`). Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Unusable(f"cannot write to stdout: {error.strerror}") from error


def write_file(content: bytes, path: Path) -> None:
    """Write a file beside its place and move it there, so that nobody ever reads half of it.

    A device or a pipe (`/dev/null`) is written to directly; a link keeps pointing to its target.

    Raises:
        Unusable: it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            _replace(content, path.resolve())
    except OSError as error:
        raise Unusable(f"cannot write {path}: {error.strerror}") from error


def _replace(content: bytes, path: Path) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _dump(value: object) -> str:
    return json.dumps(value, allow_nan=False) + "\n"
