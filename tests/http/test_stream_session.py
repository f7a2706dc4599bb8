"""`StreamSession` without a server: a frame never waits while a place is free."""

import asyncio
import struct
from pathlib import Path
from typing import Any

import orjson
import pytest
from solo_server.http.app import create_app
from solo_server.http.stream_session import StreamRequest, StreamSession
from solo_server.http.wire import DEFAULTS
from solo_server.observability.metrics import Metrics
from solo_server.observability.telemetry import FrameTelemetry, RequestRecord, RequestTelemetry
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.served_model import ServedModel
from support.images import encoded, smooth_image

PNG = encoded(smooth_image(60, 80))


def test_a_frame_that_comes_in_the_moment_in_which_a_place_becomes_free_is_answered(
    solo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next frame is received in the very step in which the last result is sent."""
    service = create_app(Pipeline.open(solo_bundle, threads=1)).state.service
    monkeypatch.setattr(ServedModel, "in_flight", 1)
    received: list[dict[str, Any]] = []

    async def run() -> None:
        await service.start()
        model = service.models.find()
        waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def send(message: dict[str, Any]) -> None:
            received.append(orjson.loads(message["text"]))
            if len(received) <= 20:
                frame = struct.pack(">I", len(received)) + PNG
                waiting.put_nowait({"type": "websocket.receive", "bytes": frame})
            else:
                waiting.put_nowait({"type": "websocket.disconnect", "code": 1000})

        request = StreamRequest(DEFAULTS, None, None, 60_000, "r-1", lambda: True)
        telemetry = FrameTelemetry(RequestTelemetry(Metrics(list)), RequestRecord(), "r-1", "/stream")
        session = StreamSession(service, request, telemetry, waiting.get, send)
        try:
            async with asyncio.timeout(60):
                assert await session.run(model) == "ok"
        finally:
            service.stop()

    asyncio.run(run())
    assert [message["type"] for message in received] == ["ready", *20 * ["result"]]
