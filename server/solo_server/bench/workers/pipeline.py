"""`python -m solo_server.bench.workers.pipeline`: a bundle from bytes to RLE, through the server's pipeline."""

from __future__ import annotations

import sys
from pathlib import Path

from solo_models.bundle import BundleError

from solo_server.bench.machine import installed_versions
from solo_server.bench.open_model import Model, open_pipeline
from solo_server.bench.protocol import Hello, Refused, TaskResult, WorkerSetup, run_worker
from solo_server.errors import ServerError, SettingsError
from solo_server.pipeline.pipeline import Pipeline


class PipelineWorker:
    """A pipeline and its images."""

    def __init__(self, model: Model, pipeline: Pipeline, bodies: list[bytes]) -> None:
        self._model, self._pipeline, self._bodies = model, pipeline, bodies

    def hello(self) -> Hello:
        """See `Worker.hello`."""
        return hello_of(self._model, self._pipeline)

    def run_task(self, index: int) -> TaskResult:
        """See `Worker.run_task`."""
        result = self._pipeline.segment(self._bodies[index])
        return TaskResult({k: v for k, v in result.timings_ms.items() if k != "total"}, len(result.instances))


def hello_of(model: Model, pipeline: Pipeline) -> Hello:
    """The description of a pipeline; the name includes the engine if it was requested."""
    bundle = pipeline.bundle
    details = {
        "version": bundle.version,
        "precision": bundle.precision,
        "engine": pipeline.engine_reason,
        "variant": bundle.spec.variant,
        "backbone": bundle.spec.backbone,
        "size": [bundle.spec.preprocess.long_side, bundle.spec.preprocess.short_side],
    }
    name = " ".join([bundle.name, model.precision or bundle.precision, *([model.engine] if model.engine else [])])
    return Hello(name, pipeline.backend.description, installed_versions(), details)


def _open(setup: WorkerSetup) -> PipelineWorker:
    try:
        model = Model.from_setup(setup)
        pipeline = open_pipeline(model, setup["threads"])
        bodies = [Path(name).read_bytes() for name in setup["images"]]
        for body, name in zip(bodies, setup["images"], strict=True):
            _check(pipeline, body, name)
    except (BundleError, OSError, SettingsError) as problem:
        raise Refused(str(problem)) from problem
    return PipelineWorker(model, pipeline, bodies)


def _check(pipeline: Pipeline, body: bytes, name: str) -> None:
    try:
        pipeline.decode(body)
    except ServerError as problem:
        raise Refused(f"{name}: {problem}") from problem


if __name__ == "__main__":
    sys.exit(run_worker(_open))
