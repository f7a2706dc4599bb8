"""The progress line."""

from __future__ import annotations

import io

import pytest
from solo_client.command.progress import Progress, duration, progress_line


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_shows_count_rate_and_time_left() -> None:
    assert progress_line(3, 12, 1.5) == "3/12  2.0 images/s  4 s left"


@pytest.mark.parametrize(("done", "elapsed_s"), [(0, 5.0), (3, 0.0)])
def test_line_has_no_rate_before_there_is_one(done: int, elapsed_s: float) -> None:
    assert progress_line(done, 12, elapsed_s) == f"{done}/12"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7320, "2 h 02 min"),
    ],
)
def test_duration_has_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_terminal_sees_the_line_and_then_nothing() -> None:
    stream = _Terminal()
    with Progress(2, stream) as progress:
        progress.show(1, 0.5)
    assert stream.getvalue() == "\r\x1b[K1/2  2.0 images/s  0 s left\r\x1b[K"


def test_one_image_needs_no_progress() -> None:
    stream = _Terminal()
    with Progress(1, stream) as progress:
        progress.show(0, 0.5)
    assert stream.getvalue() == ""


def test_nothing_is_written_to_a_file() -> None:
    stream = io.StringIO()
    with Progress(9, stream) as progress:
        progress.show(3, 0.5)
    assert stream.getvalue() == ""
