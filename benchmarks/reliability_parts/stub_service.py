"""`python benchmarks/reliability_parts/stub_service.py`: the service in process, over a pipeline that computes nothing; no HTTP.

Eight callers, each its next image when it has the result: what is left is admission, the batcher, the engine's thread, metrics.
A task is `count` images. What a server takes beyond that, JSON included, is what HTTP adds.
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
from solo_server.bench.protocol import Done, Hello, Order, work
from solo_server.observability.metrics import Metrics
from solo_server.observability.telemetry import RequestTelemetry
from solo_server.service.model_repository import single_model
from solo_server.service.service import Service
from solo_server.types import ImageResult, Query

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is all that is there

from reliability_parts.stub_server import StubBackend, StubPipeline


class StubService:
    """A service and the images of a task. See `solo_server.bench.protocol.Worker`."""

    def __init__(self, bodies: Sequence[bytes], in_flight: int, count: int) -> None:
        self._bodies, self._in_flight, self._count = bodies, in_flight, count
        self._pipeline = StubPipeline(read_bundle(demo_bundle()), StubBackend())

    def hello(self) -> Hello:
        """See `Worker.hello`."""
        return Hello("the service alone", self._pipeline.backend.description, installed_versions())

    def take(self, index: int) -> Done:
        """See `Worker.take`."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            results = runner.run(self._all())
        return Done({}, sum(len(result.instances) for result in results))

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


def _open(order: Order) -> StubService:
    return StubService([Path(path).read_bytes() for path in order["images"]], order["in_flight"], order["count"])


if __name__ == "__main__":
    sys.exit(work(_open))
