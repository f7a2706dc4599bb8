"""The service keeps work off the event loop, and the engine's thread apart from the others."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import encoded, picture
from solo_server.pipeline import Pipeline
from solo_server.service import Service
from solo_server.types import Query


def test_decoding_and_masks_run_in_workers_and_the_network_in_a_thread_of_its_own(
    solo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline.open(solo_bundle, threads=1)
    ran: dict[str, set[str]] = {}

    def watched(stage: str) -> Any:
        run = getattr(pipeline, stage)

        def call(*arguments: Any, **options: Any) -> Any:
            ran.setdefault(stage, set()).add(threading.current_thread().name)
            return run(*arguments, **options)

        return call

    for stage in ("decode", "infer", "finish"):
        monkeypatch.setattr(pipeline, stage, watched(stage))
    asyncio.run(_segment_often(Service(pipeline, 64), encoded(picture(90, 120), "JPEG")))
    workers = {f"solo_{number}" for number in range(os.cpu_count() or 1)}
    assert ran["decode"] | ran["finish"] <= workers
    assert ran["infer"] == {"solo-engine_0"}


async def _segment_often(service: Service, body: bytes) -> None:
    await service.start()
    results = await asyncio.gather(*(service.segment(body, Query()) for _ in range(8)))
    assert len({len(result.instances) for result in results}) == 1
    service.stop()
