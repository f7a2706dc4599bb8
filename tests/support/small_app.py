"""A small application behind `RequestMiddleware`, without a model; requests to it; and a parser of metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from prometheus_client.parser import text_string_to_metric_families
from solo_server.http.request_middleware import RequestMiddleware
from solo_server.http.uploads import UploadLimits
from solo_server.observability.metrics import Metrics, ModelInfo
from solo_server.observability.telemetry import RequestTelemetry
from solo_server.observability.traces import Traces

MODEL = ModelInfo("tiny", "0123", "fp32", "onnxruntime 1.32.0 cpu", ready=True)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def make_telemetry(traces: Traces | None = None) -> RequestTelemetry:
    return RequestTelemetry(Metrics(lambda: [MODEL]), traces)


def small_app(telemetry: RequestTelemetry, segment: Callable[[Request], Awaitable[Response]]) -> FastAPI:
    app = FastAPI()
    app.add_middleware(RequestMiddleware, telemetry=telemetry, limits=UploadLimits(30.0, 1.0), free=freed)
    app.add_api_route("/segment", segment, methods=["POST"], response_model=None)

    @app.get("/items/{name}")
    async def item(name: str) -> str:
        return name

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    return app


async def freed(held: list[object]) -> None:
    held.clear()


def ask(app: FastAPI, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    """The responses to requests (method, path, options of httpx), sent one after another, without a socket."""

    async def responses() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://solo") as client:
            return [await client.request(method, path, **options) for method, path, options in requests]

    return asyncio.run(responses())


def samples(text: str) -> Samples:
    """Every sample by name and labels, read by Prometheus's own parser."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, /, **labels: str) -> float | None:
    """The sample with exactly these labels."""
    return found.get((name, frozenset(labels.items())))
