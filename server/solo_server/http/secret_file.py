"""Files of secrets: API keys, and tokens for hosts of images. No message has any of the content."""

from __future__ import annotations

import os
from pathlib import Path

from solo_models.text_file import decoded

MAX_FILE_BYTES = 1 << 20


def read_lines(file: Path) -> list[str]:
    """The lines of a file.

    Raises:
        ValueError: it cannot be read, is larger than `MAX_FILE_BYTES`, or is no text; says which.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as problem:
        raise ValueError(f"cannot be read: {problem.strerror}{_advice(problem)}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        return decoded(content).splitlines()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None  # the error itself would quote the content


def _advice(problem: OSError) -> str:
    """Advice for a file that is mounted into a container, where it keeps its owner and its permissions."""
    if isinstance(problem, PermissionError) and hasattr(os, "getuid"):
        return f"; the server runs as user {os.getuid()}, which needs permission to read it"
    if isinstance(problem, IsADirectoryError):
        return "; Docker creates one where a file to be mounted does not exist"
    return ""
