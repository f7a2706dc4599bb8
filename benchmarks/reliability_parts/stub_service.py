"""`python benchmarks/reliability_parts/stub_service.py`: the service without HTTP, with a pipeline that computes nothing.

Eight callers each submit the next image after the result: what remains is admission, the batcher, the engine's thread and metrics.
A task is `count` images. What a server needs beyond that, JSON included, is the cost of HTTP.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from solo_models.bundle import read_bundle
from solo_models.demo import demo_bundle
from solo_server.bench.machine import installed_versions
from solo_server.bench.protocol import Hello, TaskResult, WorkerSetup, run_worker
from solo_server.observability.metrics import Metrics
from solo_server.observability.telemetry import RequestTelemetry
from solo_server.service.model_repository import single_model
from solo_server.service.service import Service
from solo_server.types import ImageResult, Query

sys.path.insert(0, str(Path(__file__).parents[1]))  # sys.path has only the script's own folder

from reliability_parts.stub_server import StubBackend, StubPipeline


class StubService:
    """A service and the images of a task. See `solo_server.bench.protocol.Worker`."""

    def __init__(self, bodies: Sequence[bytes], in_flight: int, count: int) -> None:
        self._bodies, self._in_flight, self._count = bodies, in_flight, count
        self._pipeline = StubPipeline(read_bundle(demo_bundle()), StubBackend())

    def hello(self) -> Hello:
        """See `Worker.hello`."""
        return Hello("the service alone", self._pipeline.backend.description, installed_versions())

    def run_task(self, index: int) -> TaskResult:
        """See `Worker.run_task`."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            results = runner.run(self._all())
        return TaskResult({}, sum(len(result.instances) for result in results))

    async def _all(self) -> list[ImageResult]:
        service = Service(single_model(self._pipeline), observer=RequestTelemetry(Metrics(lambda: [])))
        await service.start()
        results, turns = list[ImageResult](), iter(range(self._count))

        async def caller() -> None:
            for number in turns:
                results.append(await service.segment(self._bodies[number % len(self._bodies)], Query()))

        await asyncio.gather(*(caller() for _ in range(self._in_flight)))
        service.stop()
        return results


def _open(setup: WorkerSetup) -> StubService:
    return StubService([Path(path).read_bytes() for path in setup["images"]], setup["in_flight"], setup["count"])


if __name__ == "__main__":
    sys.exit(run_worker(_open))
