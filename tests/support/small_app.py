"""A small application behind `RequestMiddleware`, without a model, and ways to ask it; reading of metrics."""

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
    """The answers to requests (method, path, options of httpx) one after another, without a socket."""

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://solo") as client:
            return [await client.request(method, path, **options) for method, path, options in requests]

    return asyncio.run(all_of_them())


def samples(text: str) -> Samples:
    """Every sample by name and labels, as Prometheus's own parser reads them."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, /, **labels: str) -> float | None:
    """The sample of exactly these labels."""
    return found.get((name, frozenset(labels.items())))
