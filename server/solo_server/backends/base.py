"""The interface between the pipeline and a backend: network and post-processing together, on a CPU or on a GPU.

    images of one padded size ─► infer, a batch at a time ─► outputs ─► finish, image by image, on any thread ─► instances

On a CPU (`cpu/backend.py`) `infer` runs the network up to the category scores, and `finish` does the rest. On a GPU
(`gpu/backend.py`) `infer` does everything except the text of the encodings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from solo_server.backends.stopwatch import Stopwatch
from solo_server.types import Geometry, Instance, PreparedImage, Query


class Backend(Protocol):
    """A loaded network with its post-processing. `finish` may be called from any thread, `infer` from `max_concurrency` threads."""

    @property
    def description(self) -> str:
        """Runtime, version, device and executed precision, for `/model` and the log."""
        ...

    @property
    def max_concurrency(self) -> int:
        """How many calls of `infer` may run at a time."""
        ...

    @property
    def uses_cores(self) -> bool:
        """Whether `infer` computes on the cores that decoding and finishing take too."""
        ...

    @property
    def max_batch(self) -> int:
        """How many images one call should be given at most, where no setting says otherwise."""
        ...

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages as answers tell them: first what `infer` takes, then the laps of `finish`."""
        ...

    def infer(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> Sequence[Any]:
        """Outputs of images of one padded size, which only `finish` of the same backend understands (hence `Any`).

        Raises:
            EngineFailure: the runtime or the device failed; `DeviceLost`: this process cannot go on.
        """
        ...

    def finish(self, output: Any, geometry: Geometry, query: Query, watch: Stopwatch) -> tuple[Instance, ...]:
        """Instances of one output, best first; `query` is the one that the image was inferred with.

        Raises:
            Cancelled: the image was cancelled; checked between stages, and between instances where these take long.
        """
        ...

    def warm_up(self, blank: PreparedImage) -> None:
        """Whatever is slow only once: compiling, building, planning; with an image of an ordinary size to try it on."""
        ...

    def close(self) -> None:
        """Give back what the process's end would not."""
        ...
