"""The interface through which the service reports its work to metrics, logs and traces.

All methods are called on the event loop's thread: they must return quickly and must not raise. `answered` is called in the
task of the request, so that a context variable knows the request. model: the model's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

NO_STAGES: Mapping[str, float] = {}


class Observer(Protocol):
    """Is called for every image: refused or accepted, batched, answered with the times of its stages."""

    def refused(self, code: str, reason: str) -> None:
        """A request or image was refused. code: of the problem; reason: queue_full, warming, ..."""
        ...

    def waiting(self, images: int, pixels: int) -> None:
        """At each change: how many images are accepted and not yet answered, and how many pixels they have."""
        ...

    def batched(self, model: str, images: int, infer_ms: float) -> None:
        """A batch came back from the engine, or failed there."""
        ...

    def answered(
        self, model: str, outcome: str, total_ms: float, instances: int = 0, stages_ms: Mapping[str, float] = NO_STAGES
    ) -> None:
        """The end of an accepted image, once for each. outcome: `ok`, the problem's code, or `gone`: the client disconnected,
        or another image of the request failed and this one was given up (`/v2`).

        instances, stages_ms: of an image that is `ok`: the instances found, and the times of `queue`, `decode`, `preprocess`, the
        backend's stages and `answer` (JSON or PNG).
        """
        ...


class Unobserved:
    """An observer that does nothing, for services without telemetry."""

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
