"""From an HTTP request's bytes to a result without blocking the event loop: admission, decoding, one inference at a time.

Decoding and post-processing share one thread a core (they release the interpreter lock). The engine has threads of its own: one on
a CPU, which takes one picture at a time and uses all cores for it, and one for each slot of a GPU. What is over `max_waiting` is
refused at once instead of waiting for ever. Where the GPU is lost, only a new process can go on: `on_lost` is told, once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import perf_counter
from typing import TypeVar

from solo_server.errors import DeviceLost, EngineFailure, NotReady, Overloaded, RequestError
from solo_server.overlay import draw_png
from solo_server.pipeline import Decoded, Pipeline
from solo_server.types import PictureResult, Query

T = TypeVar("T")
LOG = logging.getLogger("solo_server")


class Service:
    """The pipeline for many callers at a time."""

    def __init__(
        self, pipeline: Pipeline, max_waiting: int, on_lost: Callable[[DeviceLost], None] | None = None
    ) -> None:
        self.pipeline = pipeline
        self._max_waiting, self._on_lost = max_waiting, on_lost
        self._waiting = 0
        self._workers = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="solo")
        self._engine_threads = ThreadPoolExecutor(pipeline.backend.at_once, thread_name_prefix="solo-engine")
        self._engine = asyncio.Semaphore(pipeline.backend.at_once)
        self.is_ready, self._is_lost = False, False

    async def start(self) -> None:
        """Warm up, so that the first caller does not wait for lazy initialisation."""
        await self._in_engine(self.pipeline.warm_up)
        self.is_ready = True

    def stop(self) -> None:
        """Refuse further work; threads end when their work has, but for one that waits for a lost GPU: it may never."""
        self.is_ready = False
        self._engine_threads.shutdown(wait=not self._is_lost)
        self._workers.shutdown(wait=True)
        self.pipeline.backend.close()

    async def segment(self, body: bytes, query: Query) -> PictureResult:
        """One picture. Raises `RequestError`, `Overloaded`, `NotReady` or `EngineFailure`."""
        return (await self._run(body, query))[0]

    async def overlay(self, body: bytes, query: Query) -> bytes:
        """One picture drawn with its instances, PNG."""
        result, decoded = await self._run(body, query, whole=True)
        names = self.pipeline.bundle.spec.class_names
        return await self._in_worker(lambda: draw_png(decoded.rgb, result.instances, names))

    async def _run(self, body: bytes, query: Query, *, whole: bool = False) -> tuple[PictureResult, Decoded]:
        if not self.is_ready:
            raise NotReady("the model is not ready yet, or the server is going down")
        if self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._waiting} pictures are waiting already")
        self._waiting += 1
        try:
            decoded = await self._in_worker(lambda: self.pipeline.decode(body, whole=whole))
            queued = perf_counter()
            async with self._engine:
                start = perf_counter()
                output = (await self._in_engine(lambda: self.pipeline.infer([decoded.picture], [query])))[0]
                infer_ms = (perf_counter() - start) * 1e3
            result = await self._in_worker(lambda: self.pipeline.finish(output, decoded, query, infer_ms))
        finally:
            self._waiting -= 1
        queue_ms = (start - queued) * 1e3
        timings = {"queue": queue_ms, **result.timings_ms, "total": result.timings_ms["total"] + queue_ms}
        return replace(result, timings_ms=timings), decoded

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await self._in_thread(self._workers, work)

    async def _in_engine(self, work: Callable[[], T]) -> T:
        return await self._in_thread(self._engine_threads, work)

    async def _in_thread(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work)
        except RequestError:
            raise
        except Exception as problem:
            LOG.exception("a stage failed on input that should have been fine", exc_info=problem)
            if isinstance(problem, DeviceLost):
                self._lost(problem)
            if isinstance(problem, EngineFailure):
                raise
            raise EngineFailure(str(problem)) from problem

    def _lost(self, problem: DeviceLost) -> None:
        """Not ready for anything any more; who is to end the process hears of it the first time."""
        was_lost, self._is_lost, self.is_ready = self._is_lost, True, False
        if not was_lost and self._on_lost is not None:
            self._on_lost(problem)
