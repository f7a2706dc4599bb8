"""What the service tells of its work, for metrics, logs and traces; by default to nobody.

All methods are called on the event loop's thread: they must return at once and must not raise. `answered` is called in
the task of the request, so that context variables tell whose image it is. model: its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

NO_STAGES: Mapping[str, float] = {}


class Observer(Protocol):
    """Hears of every image: refused or accepted, batched, its stages, answered."""

    def refused(self, code: str, reason: str) -> None:
        """A request or image was not accepted: `code` of the problem, and its `reason` (queue_full, warming, ...)."""
        ...

    def waiting(self, images: int, pixels: int) -> None:
        """How many images are accepted and not yet answered, and how many pixels they have; at each change."""
        ...

    def batched(self, model: str, images: int, infer_ms: float) -> None:
        """A batch of so many images came back from the engine, or failed there, after so long."""
        ...

    def answered(
        self, model: str, outcome: str, total_ms: float, instances: int = 0, stages_ms: Mapping[str, float] = NO_STAGES
    ) -> None:
        """An accepted image's end, once for each: `ok`, the problem's code, or `gone`: the caller went away, or another
        image of the request failed and this one was given up (`/v2`).

        instances, stages_ms: of one that is `ok`: how many were found, and how long `queue`, `decode`, `preprocess`, the backend's
        stages and `answer` (JSON or PNG) took.
        """
        ...


class Unobserved:
    """Nobody looks."""

    def refused(self, code: str, reason: str) -> None:
        """See `Observer`."""

    def waiting(self, images: int, pixels: int) -> None:
        """See `Observer`."""

    def batched(self, model: str, images: int, infer_ms: float) -> None:
        """See `Observer`."""

    def answered(
        self, model: str, outcome: str, total_ms: float, instances: int = 0, stages_ms: Mapping[str, float] = NO_STAGES
    ) -> None:
        """See `Observer`."""
