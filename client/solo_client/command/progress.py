"""Progress of a run over images, or over the frames of a video: one line, redrawn; nothing if stderr is not a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import TextIO

_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Shows count, rate and time left; the line is cleared at the end of its `with`.

    Call `clear` before anything else is written to the same terminal.
    """

    def __init__(self, total: int, stream: TextIO, unit: str = "images") -> None:
        """total: how many there are, 0 if that is not known; unit: what is counted."""
        self._total, self._unit = total, unit
        self._stream = stream
        self._visible = total != 1 and stream.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def show(self, done: int, elapsed_s: float) -> None:
        """Redraw after `done` of them in `elapsed_s` seconds."""
        if self._visible:
            self._stream.write(_CLEAR_LINE + progress_line(done, self._total, elapsed_s, self._unit))
            self._stream.flush()

    def clear(self) -> None:
        """Clear the line."""
        if self._visible:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()


def progress_line(done: int, total: int, elapsed_s: float, unit: str = "images") -> str:
    """Like `3/12  4.1 images/s  2 s left`; without the rate before the first is done.

    If there are more than `total`, or it is 0 because nobody knows, like `14 frames  4.1 frames/s`.
    """
    count = f"{done}/{total}" if done <= total and total else f"{done} {unit}"
    if done == 0 or elapsed_s <= 0:
        return count
    left = f"  {duration((total - done) * elapsed_s / done)} left" if done <= total else ""
    return f"{count}  {rate(done, elapsed_s, unit)}{left}"


def rate(done: int, elapsed_s: float, unit: str = "images") -> str:
    """Like `4.1 images/s`."""
    return f"{done / elapsed_s if elapsed_s > 0 else 0.0:.1f} {unit}/s"


def duration(seconds: float) -> str:
    """Like `26 s`, `3 min 05 s` or `1 h 02 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
