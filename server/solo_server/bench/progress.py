"""Progress of a measurement: one line on standard error that redraws itself; nothing if that is not a terminal."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import TextIO

BAR_WIDTH = 24
_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """A bar over `total` steps, cleared at the end of its `with`."""

    def __init__(self, total: float, stream: TextIO) -> None:
        self._total, self._stream = total, stream
        self._visible = stream.isatty()
        self._start = monotonic()
        self._done = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write("")

    def show(self, done: float, what: str) -> None:
        """Redraw after `done` steps; what: the current step."""
        self._done = done
        self._write(bar_line(done, self._total, monotonic() - self._start, what))

    def advance(self, what: str) -> None:
        """Advance by one step."""
        self.show(self._done + 1, what)

    def _write(self, line: str) -> None:
        if self._visible:
            self._stream.write(_CLEAR_LINE + line)
            self._stream.flush()


def bar_line(done: float, total: float, elapsed_s: float, what: str) -> str:
    """Like `[######------]  50 %  12 s left  round 2/4`."""
    share = min(1.0, done / total) if total else 1.0
    filled = round(share * BAR_WIDTH)
    left = f"  {elapsed_s * (1 - share) / share:.0f} s left" if share > 0 and elapsed_s > 0 else ""
    return f"[{'#' * filled}{'-' * (BAR_WIDTH - filled)}] {share * 100:3.0f} %{left}  {what}"
