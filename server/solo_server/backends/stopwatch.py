"""Times of the stages of one image, in milliseconds; stops the work once its result is no longer wanted."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

IsWanted = Callable[[], bool]
"""Whether a caller still waits for the result; called from any thread."""


class NotWanted(Exception):
    """The caller has disconnected, or its deadline is over, so the rest of the work is skipped. No caller sees this error."""


class Stopwatch:
    """Starts when it is created; laps of the same stage are summed. is_wanted: called at every lap and check."""

    def __init__(self, is_wanted: IsWanted = lambda: True) -> None:
        self._last, self._is_wanted = perf_counter(), is_wanted
        self.laps_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to `stage`. Raises what `check` raises."""
        now = perf_counter()
        self.laps_ms[stage] = self.laps_ms.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
        self.check()

    def check(self) -> None:
        """Call this between the pieces of long stages, from any thread.

        Raises:
            NotWanted: no caller waits any more.
        """
        if not self._is_wanted():
            raise NotWanted
