"""Times of the stages of one picture, in milliseconds."""

from __future__ import annotations

from time import perf_counter


class Stopwatch:
    """Laps from its making on; a stage that is timed twice is added up."""

    def __init__(self) -> None:
        self._last = perf_counter()
        self.laps_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to `stage`."""
        now = perf_counter()
        self.laps_ms[stage] = self.laps_ms.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
