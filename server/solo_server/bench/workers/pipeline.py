"""`python -m solo_server.bench.workers.pipeline`: a bundle from bytes to RLE, by the path that the server takes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from solo_models.bundle import BundleError

from solo_server.bench.open_model import Model, open_pipeline
from solo_server.bench.protocol import Done, Hello, Order, Refused, work
from solo_server.errors import ServerError
from solo_server.pipeline import Pipeline


class PipelineWorker:
    """A pipeline and the pictures it is asked for."""

    def __init__(self, pipeline: Pipeline, bodies: list[bytes]) -> None:
        self._pipeline, self._bodies = pipeline, bodies

    def hello(self) -> Hello:
        """See `Worker.hello`."""
        return hello_of(self._pipeline)

    def take(self, index: int) -> Done:
        """See `Worker.take`."""
        result = self._pipeline.segment(self._bodies[index])
        return Done({k: v for k, v in result.timings_ms.items() if k != "total"}, len(result.instances))


def hello_of(pipeline: Pipeline) -> Hello:
    """What a pipeline says of itself."""
    bundle = pipeline.bundle
    details = {
        "version": bundle.version,
        "precision": bundle.precision,
        "variant": bundle.spec.variant,
        "backbone": bundle.spec.backbone,
        "size": [bundle.spec.preprocess.long_side, bundle.spec.preprocess.short_side],
    }
    engine = pipeline.engine.description
    versions = {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
    return Hello(f"{bundle.name} {bundle.precision}", engine, versions, details)


def _open(order: Order) -> PipelineWorker:
    try:
        pipeline = open_pipeline(Model.from_order(order), order["threads"])
        bodies = [Path(name).read_bytes() for name in order["pictures"]]
        for body, name in zip(bodies, order["pictures"], strict=True):
            _check(pipeline, body, name)
    except (BundleError, OSError) as problem:
        raise Refused(str(problem)) from problem
    return PipelineWorker(pipeline, bodies)


def _check(pipeline: Pipeline, body: bytes, name: str) -> None:
    try:
        pipeline.decode(body)
    except ServerError as problem:
        raise Refused(f"{name}: {problem}") from problem


if __name__ == "__main__":
    sys.exit(work(_open))
