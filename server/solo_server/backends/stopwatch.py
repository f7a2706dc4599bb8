"""Times of the stages of one image, in milliseconds; and its end where nobody waits for it any more."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

IsWanted = Callable[[], bool]
"""Whether anybody still waits; asked from any thread."""


class NotWanted(Exception):
    """The caller has gone, or its time is over: the rest of the work is of no use. Nobody hears of it."""


class Stopwatch:
    """Laps from its making on; a stage that is timed twice is added up. is_wanted: asked at every lap and check."""

    def __init__(self, is_wanted: IsWanted = lambda: True) -> None:
        self._last, self._is_wanted = perf_counter(), is_wanted
        self.laps_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to `stage`; raises what `check` raises."""
        now = perf_counter()
        self.laps_ms[stage] = self.laps_ms.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
        self.check()

    def check(self) -> None:
        """To be called between pieces of long stages, from any thread.

        Raises:
            NotWanted: nobody waits any more.
        """
        if not self._is_wanted():
            raise NotWanted
