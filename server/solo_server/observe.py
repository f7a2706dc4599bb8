"""What the service tells of its work, for metrics, logs and traces; by default to nobody.

All methods are called on the event loop's thread: they must return at once and must not raise. `stage`, `found` and `answered` are
called in the task of the request, so that context variables tell whose they are. model: its name.
"""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Hears of every picture: refused or accepted, batched, its stages, answered."""

    def refused(self, code: str, reason: str) -> None:
        """A request or picture was not accepted: `code` of the problem, and its `reason` (queue_full, warming, ...)."""
        ...

    def waiting(self, pictures: int, pixels: int) -> None:
        """How many pictures are accepted and not yet answered, and how many pixels they have; at each change."""
        ...

    def batched(self, model: str, pictures: int, infer_ms: float) -> None:
        """A batch of so many pictures came back from the engine, or failed there, after so long."""
        ...

    def stage(self, model: str, name: str, ms: float) -> None:
        """A stage of one picture: `decode`, `preprocess`, `queue`, those of the backend, `answer` (JSON or PNG)."""
        ...

    def found(self, instances: int) -> None:
        """A picture is finished, with so many instances."""
        ...

    def answered(self, model: str, outcome: str, total_ms: float) -> None:
        """An accepted picture's end, once for each: `ok`, the problem's code, or `gone`: the caller went away, or another
        picture of the request failed and this one was given up (`/v2`)."""
        ...


class Unobserved:
    """Nobody looks."""

    def refused(self, code: str, reason: str) -> None:
        """See `Observer`."""

    def waiting(self, pictures: int, pixels: int) -> None:
        """See `Observer`."""

    def batched(self, model: str, pictures: int, infer_ms: float) -> None:
        """See `Observer`."""

    def stage(self, model: str, name: str, ms: float) -> None:
        """See `Observer`."""

    def found(self, instances: int) -> None:
        """See `Observer`."""

    def answered(self, model: str, outcome: str, total_ms: float) -> None:
        """See `Observer`."""
