"""How much may wait: the server's bounds on accepted images, by count, by pixels and by their deadlines, and when to come back.

request ─► occupy, before its body is read ─► header of the image ─► occupy_pixels, before it is decoded ─► ... ─► leave

What would not be answered in its time, at the rate of late, is refused at once: accepted, it would cost others theirs, for nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from time import monotonic

from solo_server.errors import Overloaded
from solo_server.observability.observer import Observer, Unobserved

RECENT = 64  # answers that the rate is taken from
FEW = 8  # answers of a busy period that tell no rate yet to refuse by
SAFE = 0.8  # of an image's time: images differ, and those at work are not all alike
LONGEST_RETRY_S = 60


class Admission:
    """Counts what is accepted and not yet answered. Of the event loop's thread.

    clock: seconds, monotonic.
    """

    def __init__(
        self,
        max_images: int,
        max_pixels: int,
        observer: Observer | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._max_images, self._max_pixels, self._clock = max_images, max_pixels, clock
        self._observer = observer or Unobserved()
        self._recent: deque[float] = deque(maxlen=RECENT)  # of this busy period: its start or an answer, then answers
        self._pace_before: float | None = None
        self.images = self.pixels = 0

    def occupy(self, seconds: float = math.inf) -> None:
        """A place for one image that has so many `seconds` to be answered. One alone always has it.

        Raises:
            Overloaded: `queue_full`; `deadline_near`: it would not be answered in its time.
        """
        if self.images >= self._max_images:
            raise self._refusal(f"{self.images} images are waiting already", "queue_full")
        pace = self._pace()
        if self.images and pace is not None and (self.images + 1) * pace > SAFE * seconds:
            detail = f"{self.images} images are waiting already: more than this request has the time for"
            raise self._refusal(detail, "deadline_near")
        if self.images == 0:
            self._begin()
        self.images += 1
        self._observer.waiting(self.images, self.pixels)

    def occupy_pixels(self, pixels: int) -> None:
        """Room for the pixels of an image; one alone always has it.

        Raises:
            Overloaded: `pixels_full`.
        """
        if self.pixels and self.pixels + pixels > self._max_pixels:
            detail = f"images of {self.pixels} pixels are waiting already; at most {self._max_pixels} may"
            raise self._refusal(detail, "pixels_full")
        self.pixels += pixels
        self._observer.waiting(self.images, self.pixels)

    def answered(self) -> None:
        """An image has its answer, which tells how fast answers come."""
        self._recent.append(self._clock())

    def leave(self, images: int, pixels: int) -> None:
        """Places and room that are free again."""
        self.images -= images
        self.pixels -= pixels
        self._observer.waiting(self.images, self.pixels)

    def _begin(self) -> None:
        """A busy period: the time in which the server was idle says nothing about how fast it is."""
        self._pace_before = self._pace(idle=True)
        self._recent.clear()
        self._recent.append(self._clock())

    def _pace(self, *, idle: bool = False) -> float | None:
        """Seconds from one answer to the next, of late or else of the busy period before. idle: nothing waits for another."""
        answers = len(self._recent) - 1
        if answers < FEW:
            return self._pace_before
        return ((self._recent[-1] if idle else self._clock()) - self._recent[0]) / answers

    def _refusal(self, detail: str, reason: str) -> Overloaded:
        problem = Overloaded(detail, reason, self._retry_after_s())
        self._observer.refused(problem.code, reason)
        return problem

    def _retry_after_s(self) -> int:
        """When all that waits will have been answered, at the rate of late."""
        answered = len(self._recent) - 1
        if answered < 1:
            return 1
        seconds = self.images * (self._clock() - self._recent[0]) / answered
        return min(max(math.ceil(seconds), 1), LONGEST_RETRY_S)
