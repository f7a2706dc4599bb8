"""Limits on the images that are accepted and not yet answered: their count, their pixels and their deadlines; and `Retry-After`.

request ─► reserve, before its body is read ─► header of the image ─► reserve_pixels, before it is decoded ─► ... ─► release

An image that would not be answered before its deadline, at the recent throughput, is refused at once: if accepted, it would only
take time from the others.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from time import monotonic

from solo_server.errors import Overloaded
from solo_server.observability.observer import Observer, Unobserved

RECENT = 64  # answers that the throughput is measured over
FEW = 8  # answers of a busy period after which its throughput is used to refuse images
SAFE = 0.8  # share of an image's time that its answer is expected to take at most: images differ
LONGEST_RETRY_S = 60


class Admission:
    """Counts what is accepted and not yet answered. All methods run on the event loop's thread. clock: monotonic, in seconds."""

    def __init__(
        self,
        max_images: int,
        max_pixels: int,
        observer: Observer | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._max_images, self._max_pixels, self._clock = max_images, max_pixels, clock
        self._observer = observer or Unobserved()
        self._recent: deque[float] = deque(
            maxlen=RECENT
        )  # times, of this busy period: its start or an answer, then answers
        self._pace_before: float | None = None
        self.images = self.pixels = 0

    def reserve(self, seconds: float = math.inf) -> None:
        """Count one image that is to be answered within `seconds`. The deadline does not matter while no other image is counted.

        Raises:
            Overloaded: `queue_full`; `deadline_near`: it would not be answered before its deadline.
        """
        if self.images >= self._max_images:
            raise self._refusal(f"{self.images} images are already waiting", "queue_full")
        pace = self._pace()
        if self.images and pace is not None and (self.images + 1) * pace > SAFE * seconds:
            detail = f"{self.images} images are already waiting: too many for the deadline of this request"
            raise self._refusal(detail, "deadline_near")
        if self.images == 0:
            self._start_busy_period()
        self.images += 1
        self._observer.waiting(self.images, self.pixels)

    def reserve_pixels(self, pixels: int) -> None:
        """Count the pixels of one image. An image is accepted at any size while no other is counted.

        Raises:
            Overloaded: `pixels_full`.
        """
        if self.pixels and self.pixels + pixels > self._max_pixels:
            detail = f"images of {self.pixels} pixels are already waiting; the limit is {self._max_pixels}"
            raise self._refusal(detail, "pixels_full")
        self.pixels += pixels
        self._observer.waiting(self.images, self.pixels)

    def answered(self) -> None:
        """Note the time of an answer, for the throughput."""
        self._recent.append(self._clock())

    def release(self, images: int, pixels: int) -> None:
        """Take images and pixels off the counts."""
        self.images -= images
        self.pixels -= pixels
        self._observer.waiting(self.images, self.pixels)

    def _start_busy_period(self) -> None:
        """Forget the answers before: idle time between them says nothing about the throughput."""
        self._pace_before = self._pace(idle=True)
        self._recent.clear()
        self._recent.append(self._clock())

    def _pace(self, *, idle: bool = False) -> float | None:
        """Seconds between answers, recently or, before there are enough, in the previous busy period. idle: no image is waiting."""
        answers = len(self._recent) - 1
        if answers < FEW:
            return self._pace_before
        return ((self._recent[-1] if idle else self._clock()) - self._recent[0]) / answers

    def _refusal(self, detail: str, reason: str) -> Overloaded:
        problem = Overloaded(detail, reason, self._retry_after_s())
        self._observer.refused(problem.code, reason)
        return problem

    def _retry_after_s(self) -> int:
        """Seconds until all waiting images are answered, at the recent throughput."""
        answers = len(self._recent) - 1
        if answers < 1:
            return 1
        seconds = self.images * (self._clock() - self._recent[0]) / answers
        return min(max(math.ceil(seconds), 1), LONGEST_RETRY_S)
