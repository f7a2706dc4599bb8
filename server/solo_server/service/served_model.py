"""One model in service: its pipeline, its engine threads, its batcher, and the way in which its images are executed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from solo_server.backends.base import Backend
from solo_server.errors import ServerError
from solo_server.observability.observer import Observer
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.batching import Batcher, BatchRules
from solo_server.service.execution import Execution, RunToCompletion, StagedExecution, StageThreads
from solo_server.service.model_repository import ModelSource
from solo_server.service.worker_threads import WorkerThreads
from solo_server.settings import Settings
from solo_server.system.cores import share_of_cores


@dataclass(frozen=True, slots=True)
class Shared:
    """What all models of a service share. on_end: see `Batcher`."""

    settings: Settings
    observer: Observer
    decode: StageThreads
    finish: StageThreads
    on_end: Callable[[ServerError], None]


class ServedModel:
    """One loaded version of a model."""

    def __init__(self, source: ModelSource, pipeline: Pipeline, shared: Shared) -> None:
        self.name, self.version, self.stamp, self.pipeline = source.name, source.version, source.stamp, pipeline
        backend, settings = pipeline.backend, shared.settings
        self.execution: Execution = (
            RunToCompletion()
            if runs_to_completion(backend, settings)
            else StagedExecution(pipeline, shared.decode, shared.finish)
        )
        self.engine = WorkerThreads("engine", backend.max_concurrency)
        rules = BatchRules(
            max_concurrency=backend.max_concurrency,
            ahead=self.execution.ahead,
            max_batch=settings.max_batch or backend.max_batch,
            max_delay_s=settings.max_delay_ms / 1e3,
            engine_timeout_s=settings.engine_timeout_s,
        )
        self.batcher = Batcher(
            lambda items: self.engine.run(lambda: self.execution.infer(items)),
            rules, shared.on_end, partial(shared.observer.batched, self.name),
        )  # fmt: skip
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def in_flight(self) -> int:
        """Images at a time from one caller that keep the engine busy, with the lowest latency at which that is possible.

        Run to completion: one for each core. In stages: one more, which is decoded meanwhile.
        """
        return max(2, self.pipeline.backend.max_concurrency + 1 - self.execution.ahead)

    def use(self) -> None:
        """Called by each request that uses it, which calls `leave` at its end."""
        self._users += 1
        self._unused.clear()

    def leave(self) -> None:
        """See `use`."""
        self._users -= 1
        if self._users == 0:
            self._unused.set()

    async def unused(self) -> None:
        """Wait until no request uses it."""
        await self._unused.wait()

    def close(self) -> None:
        """Stop its threads and close the backend. While a thread is still busy, the backend stays open until the process ends."""
        is_idle = self.engine.is_idle
        self.engine.stop()
        if is_idle:
            self.pipeline.backend.close()


def runs_to_completion(backend: Backend, settings: Settings) -> bool:
    """Whether one engine thread decodes, infers and finishes an image, instead of handing it from stage to stage.

    True if the engine computes on the cores and works on as many images at a time as this process has cores: threads of other
    stages would only take cores from it.
    """
    return (
        backend.uses_cores
        and backend.max_concurrency >= share_of_cores(settings.workers)
        and (settings.max_batch or backend.max_batch) == 1
    )
