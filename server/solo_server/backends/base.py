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
        """Whether `infer` runs on the CPU cores, as decoding and `finish` do."""
        ...

    @property
    def max_batch(self) -> int:
        """The largest batch for one call of `infer`, unless a setting gives another."""
        ...

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in responses: first that of `infer`, then the laps of `finish`."""
        ...

    def infer(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> Sequence[Any]:
        """Outputs of images of one padded size. Their type is the backend's own, for its `finish` (hence `Any`).

        Raises:
            EngineFailure: the runtime or the device failed.
            DeviceLost: the device failed for good; only a new process can continue.
        """
        ...

    def finish(self, output: Any, geometry: Geometry, query: Query, watch: Stopwatch) -> tuple[Instance, ...]:
        """Instances of one output, best first; `query` must be the one given to `infer`.

        Raises:
            Cancelled: the image was cancelled; checked between stages, and between instances in long stages.
        """
        ...

    def warm_up(self, blank: PreparedImage) -> None:
        """Do what is slow only once: compile, build, plan. blank: an image of an ordinary size to run."""
        ...

    def close(self) -> None:
        """Release what the end of the process does not."""
        ...
