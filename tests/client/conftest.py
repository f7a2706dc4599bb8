"""Responses, images, and a fixture that makes the same call with both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any  # Any: fixtures pass any call on to both clients

import httpx
import pytest
from solo_client import AsyncSoloClient, SoloClient

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


@pytest.fixture
def png() -> bytes:
    return PNG


@pytest.fixture
def answer() -> dict[str, Any]:
    """A response for an image of 3 x 2 pixels with one object: the two pixels of the first column."""
    return {
        "image": {"width": 3, "height": 2},
        "model": {"name": "demo-person", "version": "0123456789ab"},
        "timings_ms": {"decode": 1.2, "preprocess": 0, "infer": 30.5, "postprocess": 2.0, "encode": 0.1, "total": 33.8},
        "instances": [
            {
                "label": "person",
                "class_id": 0,
                "score": 0.93,
                "box_xywh": [0, 0, 1, 2],
                "area": 2,
                "mask": {"size": [2, 3], "counts": "024"},
            }
        ],
    }


@pytest.fixture
def problem() -> Callable[..., dict[str, Any]]:
    def build(code: str, status: int) -> dict[str, Any]:
        return {
            "type": f"urn:solo:{code}",
            "title": code.replace("_", " "),
            "status": status,
            "detail": f"what went wrong: {code}",
            "code": code,
            "request_id": "r-1",
        }

    return build


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """call(handler, method, *arguments, client={...}, **options), once with each client."""
    asynchronous = request.param == "async"

    def run(handler: Any, method: str, *arguments: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
        settings = {"transport": httpx.MockTransport(handler)} | (client or {})

        async def run_async() -> Any:
            async with AsyncSoloClient("http://solo.test/api", **settings) as opened:
                if method == "segment_many":
                    return [result async for result in opened.segment_many(*arguments, **options)]
                return await getattr(opened, method)(*arguments, **options)

        if asynchronous:
            return asyncio.run(run_async())
        with SoloClient("http://solo.test/api", **settings) as opened:
            found = getattr(opened, method)(*arguments, **options)
            return list(found) if method == "segment_many" else found

    return run
