"""`python benchmarks/reliability_parts/in_process.py`: the pipeline without HTTP and service, in its own process.

Task 0: run to completion, as in the server: as many threads as the backend's concurrency, each runs one image from bytes to
instances. Task 1: overlapped: eight images in flight; at most one per core is decoded and finished at a time, and the network has
the backend's concurrency. Task 2: one by one. Each task runs `count` images, cycling through the given ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore

from solo_models.demo import demo_bundle
from solo_server.bench.machine import installed_versions
from solo_server.bench.protocol import Hello, TaskResult, WorkerSetup, run_worker
from solo_server.pipeline.pipeline import Pipeline
from solo_server.system.cores import cores
from solo_server.types import ImageResult, Query

TASKS = ("run_to_completion", "overlapped", "one_by_one")


class InProcess:
    """A pipeline and the images of each task. See `solo_server.bench.protocol.Worker`."""

    def __init__(self, bodies: Sequence[bytes], in_flight: int, count: int) -> None:
        self._pipeline, self._in_flight = Pipeline.open(demo_bundle(), slots=0), in_flight
        self._pipeline.warm_up()
        self._turns = [bodies[number % len(bodies)] for number in range(count)]

    def hello(self) -> Hello:
        """See `Worker.hello`."""
        return Hello("in process", self._pipeline.backend.description, installed_versions())

    def run_task(self, index: int) -> TaskResult:
        """See `Worker.run_task`; the instances of all images count."""
        pipeline = self._pipeline
        threads, segment = [
            (pipeline.backend.max_concurrency, pipeline.segment),
            (self._in_flight, self._stages()),
            (1, pipeline.segment),
        ][index]
        with ThreadPoolExecutor(threads) as pool:
            return TaskResult({}, sum(len(result.instances) for result in pool.map(segment, self._turns)))

    def _stages(self) -> Callable[[bytes], ImageResult]:
        pipeline, network = self._pipeline, Semaphore(self._pipeline.backend.max_concurrency)
        decoding, finishing = Semaphore(cores()), Semaphore(cores())

        def segment(body: bytes) -> ImageResult:
            with decoding:
                decoded = pipeline.decode(body)
            with network:
                output = pipeline.infer([decoded.image])[0]
            with finishing:
                return pipeline.finish(output, decoded, Query(), 0.0)

        return segment


def _open(setup: WorkerSetup) -> InProcess:
    return InProcess([Path(path).read_bytes() for path in setup["images"]], setup["in_flight"], setup["count"])


if __name__ == "__main__":
    sys.exit(run_worker(_open))
