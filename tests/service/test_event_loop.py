"""No request keeps the event loop busy for long."""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving

MOST_MS = 5.0


@pytest.fixture
def frozen() -> Iterator[None]:
    """Freeze the objects of earlier tests, so that the garbage collector does not visit them; `solo serve` does the same."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.alone
@pytest.mark.usefixtures("frozen")
def test_no_callback_of_the_event_loop_computes_for_more_than_5_ms(
    solo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy_ms: list[tuple[float, str]] = []
    run = asyncio.Handle._run

    def measured(handle: Any) -> None:
        start = time.thread_time()  # processor time: other processes do not count
        run(handle)
        if not threading.current_thread().name.startswith("solo-"):  # threads parse large forms in a loop of their own
            busy_ms.append(((time.thread_time() - start) * 1e3, repr(handle)))

    pipeline = Pipeline.open(solo_bundle, threads=1)
    noise = encoded(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8))
    assert len(noise) > 6_000_000
    small = encoded(smooth_image(90, 120), "JPEG")
    with serving(create_app(pipeline, Settings(max_waiting=3)), loop="asyncio") as client:
        client.get("/openapi.json")  # made once, at the first request
        client.post("/segment", content=small)
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.Handle, "_run", measured)
            for content in (small, noise, b"no image", small[:600]):
                client.post("/segment", content=content)
            client.post("/segment", content=noise, params={"max_instances": 500, "score_threshold": 0})
            client.post("/segment", content=noise, params={"format": "overlay"})
            client.post("/segment", files=[("f", (f"{number}.png", noise)) for number in range(4)])
            client.post("/segment", files=[("f", (f"{number}.jpg", small)) for number in range(20)])
    assert len(busy_ms) > 50
    assert max(busy_ms)[0] < MOST_MS, max(busy_ms)
