"""Times of the stages of one image, in milliseconds, and the check that stops a cancelled one."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

IsCancelled = Callable[[], bool]
"""Whether the caller of an image no longer waits for it; called from any thread."""


def never() -> bool:
    """For images that are never cancelled."""
    return False


class Cancelled(Exception):
    """The caller has disconnected, or its deadline has passed: the rest of the work is skipped. The caller never sees this."""


class Stopwatch:
    """Laps since it was created; the laps of one stage are added up. is_cancelled: called at every lap and check."""

    def __init__(self, is_cancelled: IsCancelled = never) -> None:
        self._last, self._is_cancelled = perf_counter(), is_cancelled
        self.laps_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to `stage`; raises what `check` raises."""
        now = perf_counter()
        self.laps_ms[stage] = self.laps_ms.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
        self.check()

    def check(self) -> None:
        """Call it between the parts of a long stage, from any thread.

        Raises:
            Cancelled: the image was cancelled.
        """
        if self._is_cancelled():
            raise Cancelled
