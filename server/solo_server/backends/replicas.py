"""Several copies of one backend behind the interface of one (`SOLO_REPLICAS`)."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from solo_server.backends.base import Backend
from solo_server.backends.stopwatch import Stopwatch
from solo_server.types import Geometry, Instance, PreparedImage, Query


class Replicas:
    """Several backends of one bundle as one: each batch runs on an idle backend. See `Backend`."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = tuple(backends)
        self._idle: SimpleQueue[int] = SimpleQueue()
        each = self._backends[0].max_concurrency
        for number in each * list(range(len(self._backends))):  # round robin: one image each, then a second
            self._idle.put(number)
        self.max_concurrency = each * len(self._backends)
        self.max_batch, self.stages = self._backends[0].max_batch, self._backends[0].stages
        self.uses_cores = self._backends[0].uses_cores

    @property
    def description(self) -> str:
        """See `Backend.description`."""
        return f"{len(self._backends)} x {self._backends[0].description}"

    def infer(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> Sequence[tuple[int, Any]]:
        """See `Backend.infer`; each output comes with the number of its backend."""
        number = self._idle.get()
        try:
            return [(number, output) for output in self._backends[number].infer(images, queries)]
        finally:
            self._idle.put(number)

    def finish(
        self, output: tuple[int, Any], geometry: Geometry, query: Query, watch: Stopwatch
    ) -> tuple[Instance, ...]:
        """See `Backend.finish`."""
        number, backend_output = output
        return self._backends[number].finish(backend_output, geometry, query, watch)

    def warm_up(self, blank: PreparedImage) -> None:
        """See `Backend.warm_up`."""
        for backend in self._backends:
            backend.warm_up(blank)

    def close(self) -> None:
        """See `Backend.close`."""
        for backend in self._backends:
            backend.close()
