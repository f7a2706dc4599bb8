"""Messages of long commands, each with the seconds since the command began."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic


def clocked_log(lines: list[str] | None = None) -> Callable[[str], None]:
    """A function that writes a message to standard error with the seconds since now. lines: also gets every line."""
    start = monotonic()

    def log(message: str) -> None:
        line = f"[{monotonic() - start:6.1f} s] {message}"
        if lines is not None:
            lines.append(line)
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    return log
