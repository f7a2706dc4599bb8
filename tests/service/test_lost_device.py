"""After the GPU is lost the service is not ready, and the process ends, so that its supervisor starts another."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from solo_server.backends.base import Backend
from solo_server.errors import DeviceFailure, DeviceLost, NotReady, ServerError
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import single_model
from solo_server.service.service import Service
from solo_server.types import Query
from support.images import encoded, smooth_image

BODY = encoded(smooth_image(90, 120), "JPEG")


class FailingBackend:
    """The real backend, with a device that fails on request."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.max_concurrency, self.stages, self.description = backend.max_concurrency, backend.stages, "failing"
        self.max_batch, self.uses_cores = backend.max_batch, backend.uses_cores
        self.failure: Exception | None = None
        self.closed = 0

    def infer(self, images: Sequence[Any], queries: Sequence[Query]) -> Sequence[Any]:
        if self.failure is not None:
            raise self.failure
        return self._backend.infer(images, queries)

    def finish(self, *arguments: Any) -> Any:
        return self._backend.finish(*arguments)

    def warm_up(self, blank: Any) -> None:
        self._backend.warm_up(blank)

    def close(self) -> None:
        self.closed += 1


def _failing(bundle: Path) -> tuple[Pipeline, FailingBackend]:
    pipeline = Pipeline.open(bundle, threads=1)
    backend = FailingBackend(pipeline.backend)
    return Pipeline(pipeline.bundle, backend), backend


def test_a_failed_batch_leaves_the_service_ready(solo_bundle: Path) -> None:
    pipeline, backend = _failing(solo_bundle)

    async def scenario() -> None:
        service = Service(single_model(pipeline))
        await service.start()
        backend.failure = DeviceFailure("enqueue failed")
        with pytest.raises(DeviceFailure):
            await service.segment(BODY, Query())
        backend.failure = None
        assert (await service.segment(BODY, Query())).instances
        service.stop()

    asyncio.run(scenario())
    assert backend.closed == 1


def test_a_lost_device_makes_the_service_unready_and_is_reported_once(solo_bundle: Path) -> None:
    pipeline, backend = _failing(solo_bundle)
    reported: list[ServerError] = []

    async def scenario() -> None:
        service = Service(single_model(pipeline), on_end=reported.append)
        await service.start()
        backend.failure = DeviceLost("CUDA_ERROR_ILLEGAL_ADDRESS")
        answers = await asyncio.gather(*(service.segment(BODY, Query()) for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [DeviceLost] * 3
        assert not service.is_ready
        with pytest.raises(NotReady):
            await service.segment(BODY, Query())
        service.stop()

    asyncio.run(scenario())
    assert reported == [backend.failure]


SERVER = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from solo_server.errors import DeviceLost
from solo_server.pipeline.pipeline import Pipeline
from solo_models.cli import main

open_pipeline = Pipeline.open

def opened(*arguments, **options):
    pipeline = open_pipeline(*arguments, **options)
    infer, warm_up = pipeline.backend.infer, pipeline.backend.warm_up
    def lost(images, queries):
        raise DeviceLost("CUDA_ERROR_ILLEGAL_ADDRESS")
    def warm(blank):
        warm_up(blank)
        pipeline.backend.infer = lost
    pipeline.backend.warm_up = warm
    return pipeline

Pipeline.open = opened
sys.exit(main(["serve", {bundle!r}, "--port", {port!r}, "--threads", "1"]))
"""


def test_the_process_ends_with_status_75_after_answering_what_it_had_accepted(solo_bundle: Path) -> None:
    port = str(_free_port())
    code = SERVER.format(paths=[path for path in sys.path if path], bundle=str(solo_bundle), port=port)
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr or []))
        reader.start()
        try:
            answer = _post(f"http://127.0.0.1:{port}")
            assert process.wait(timeout=30) == 75
        finally:
            process.kill()
            reader.join()
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "ILLEGAL_ADDRESS" not in answer.text
    assert any("the GPU is lost" in line for line in lines)


def _post(url: str) -> httpx.Response:
    """The answer to an image, once the server is ready."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return httpx.post(f"{url}/segment", content=BODY, timeout=30)
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(url)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
