"""A real pipeline whose engine waits until a test opens its gate."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from solo_server.backends.base import Backend
from solo_server.pipeline.pipeline import Pipeline
from solo_server.types import Query


class Gate:
    """Blocks the calls of the engine until `open` is set. taken: set at the first call; images: inferred so far."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = Pipeline(pipeline.bundle, Gated(pipeline.backend, self))
        self.open, self.taken = threading.Event(), threading.Event()
        self.images = 0

    async def taken_one(self) -> None:
        await asyncio.to_thread(self.taken.wait, 30)


class Gated:
    """The real backend behind a gate."""

    def __init__(self, backend: Backend, gate: Gate) -> None:
        self._backend, self._gate = backend, gate
        self.max_concurrency, self.max_batch = backend.max_concurrency, backend.max_batch
        self.uses_cores, self.stages = backend.uses_cores, backend.stages
        self.description, self.is_closed = "gated", False

    def infer(self, images: Sequence[Any], queries: Sequence[Query]) -> Sequence[Any]:
        self._gate.taken.set()
        self._gate.open.wait(30)
        self._gate.images += len(images)
        return self._backend.infer(images, queries)

    def finish(self, *arguments: Any) -> Any:
        return self._backend.finish(*arguments)

    def warm_up(self, blank: Any) -> None:
        self._backend.warm_up(blank)

    def close(self) -> None:
        self.is_closed = True
