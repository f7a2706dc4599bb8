"""The JSON document of a measurement: written atomically, and read back for reports."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from solo_models.atomic_file import atomic_write

from solo_server.bench.errors import BenchError
from solo_server.bench.machine import provenance

FORMAT = "solo-bench"
FORMAT_VERSION = 1
KINDS = ("pipeline", "engine", "server")

Document = dict[str, Any]


def document(kind: str, settings: dict[str, Any], measured: dict[str, Any]) -> Document:
    """A measurement with everything needed to repeat it."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind}
    return {**head, **provenance(), "settings": settings, **measured}


def write_document(path: Path, content: Document) -> None:
    """Write as JSON.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_document(path: Path) -> Document:
    """Read a document that `write_document` wrote.

    Raises:
        BenchError: no such file, not JSON, not a result of `solo bench`, or of a newer version.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as problem:
        raise BenchError(f"{path}: {problem.strerror}") from problem
    except ValueError as problem:
        raise BenchError(f"{path}: is not JSON ({problem})") from problem
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BenchError(f"{path}: is not a result of solo bench")
    if content.get("format_version") != FORMAT_VERSION:
        raise BenchError(f"{path}: format_version {content.get('format_version')} is not {FORMAT_VERSION}")
    if content.get("kind") not in KINDS:
        raise BenchError(f"{path}: kind: must be one of {', '.join(KINDS)}")
    return content


def check_writable(path: Path) -> None:
    """Check before the measurement that a file can be written.

    Raises:
        BenchError: the path is a folder, or its nearest existing parent is not a writable folder.
    """
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        raise BenchError(f"{path}: is a folder")
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise BenchError(f"{path}: cannot be written")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; missing folders are created."""
    with atomic_write(path) as scratch:
        scratch.write_text(text)
