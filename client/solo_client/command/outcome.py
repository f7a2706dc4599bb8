"""Counts what a run of `solo segment` has done, for its last line and its exit code."""

from __future__ import annotations

from dataclasses import dataclass

from solo_client.command.output import Failed, Segmented
from solo_client.command.progress import rate
from solo_client.errors import SoloError


@dataclass(slots=True)
class Outcome:
    """The outcome of a run. stopped: why it ended before the last image, or None."""

    images: int = 0
    frames: int = 0
    instances: int = 0
    failed: int = 0
    elapsed_s: float = 0.0
    stopped: SoloError | None = None

    def count(self, done: Segmented | Failed) -> None:
        """Count an image, a frame, or something that failed."""
        if isinstance(done, Failed):
            self.failed += 1
            return
        self.instances += len(done.result.instances)
        if done.frame is None:
            self.images += 1
        else:
            self.frames += 1

    @property
    def has_results(self) -> bool:
        """Whether there is something to write."""
        return self.images + self.frames + self.failed > 0 or self.stopped is None

    def summary(self) -> str:
        """Like `12 images, 31 instances, 4.1 images/s`; what failed does not count."""
        failed = f", {self.failed} failed" if self.failed else ""
        counted = [f"{self.frames} frames"] if self.frames else []
        if self.images or not self.frames:
            counted.insert(0, f"{self.images} images")
        speed = rate(
            self.images + self.frames, self.elapsed_s, "frames" if not self.images and self.frames else "images"
        )
        return f"{' and '.join(counted)}, {self.instances} instances, {speed}{failed}"
