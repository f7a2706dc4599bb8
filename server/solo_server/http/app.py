"""The FastAPI application: middleware, routes, health and metrics.

path without SOLO_ROOT_PATH ─► RequestMiddleware ─► (CORS) ─► (API keys) ─► ProblemMiddleware ─► routes
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from solo_server.http.api_keys import KeyRing
from solo_server.http.image_urls import ImageUrls
from solo_server.http.openapi import METRICS, PROBLEMS, READY
from solo_server.http.pages import add_pages
from solo_server.http.problems import ProblemMiddleware
from solo_server.http.request_middleware import RequestMiddleware
from solo_server.http.root_path import refuse_own_paths, remove_prefix
from solo_server.http.routes import add_models, add_segment
from solo_server.http.routing import DirectRoute, Routes, json_response, redirect_from_slash
from solo_server.http.security import add_guards, open_paths
from solo_server.http.stream import add_stream
from solo_server.http.uploads import UploadLimits
from solo_server.http.v2.routes import add_v2
from solo_server.observability.metrics import Metrics, ModelInfo
from solo_server.observability.telemetry import RequestTelemetry
from solo_server.observability.traces import Traces
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import ModelRepository, single_model
from solo_server.service.service import Service
from solo_server.settings import Settings


def create_app(
    models: Pipeline | ModelRepository,
    settings: Settings | None = None,
    on_end: Callable[[Exception], None] | None = None,
    keys: KeyRing | None = None,
    traces: Traces | None = None,
    on_ready: Callable[[], None] | None = None,
) -> FastAPI:
    """The application around models. When it starts, models are loaded (unless they are) and warmed up, in a thread.

    on_end: called with a failure that only a new process can fix: a model cannot be loaded, its GPU is lost, its engine hangs.
    keys: the accepted API keys; without them the settings name them. traces: where spans of requests go. on_ready: called when
    requests are accepted.

    Raises:
        SettingsError: the API keys cannot be read, or `root_path` or `image_urls` is invalid.
    """
    settings = settings or Settings()
    prefix = settings.root_path or ""
    keys = KeyRing.read(settings) if keys is None else keys
    image_urls = ImageUrls.read(settings)
    telemetry = RequestTelemetry(Metrics(lambda: _served(service), among_workers=settings.workers > 1), traces)
    service = Service(single_model(models) if isinstance(models, Pipeline) else models, settings, on_end, telemetry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(_start(service, on_end, on_ready))
        yield
        starting.cancel()
        service.stop()
        if traces is not None:
            await asyncio.to_thread(traces.close)

    app = _App(
        prefix,
        title="SOLO inference server",
        version=version("solo-inference"),
        description="Instance segmentation with SOLO: an image in, COCO RLE masks out.",
        lifespan=lifespan,
        openapi_url=None,  # `add_pages` adds it and `/docs`
    )
    app.state.service, app.state.settings = service, settings
    app.state.image_urls = image_urls
    app.router.route_class = DirectRoute
    app.router.redirect_slashes, app.router.default = False, redirect_from_slash(app.router, prefix)
    add_pages(app, prefix, has_keys=not keys.is_empty, open_paths=open_paths(settings))
    add_guards(app, settings, keys)
    limits = UploadLimits(settings.body_timeout_s, settings.body_bytes_per_s)
    app.add_middleware(RequestMiddleware, telemetry=telemetry, limits=limits, free=service.free)
    add_segment(app, service, settings, image_urls)
    add_stream(app, service, settings, telemetry)
    add_models(app, service)
    add_v2(app, service)
    _add_health(app, service)
    _add_metrics(app, telemetry)
    refuse_own_paths(prefix, app.routes)
    return app


class _App(FastAPI):
    """FastAPI's routes and OpenAPI document, without its middleware: that serves dependencies and exception handlers, which no
    route here has, and takes longer than all of the server's own middleware.

    prefix: what a reverse proxy puts before all paths, or nothing. Inside, no path has it.
    """

    def __init__(self, prefix: str, **options: Any) -> None:
        super().__init__(**options)
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if self._prefix and scope["type"] != "lifespan":
            remove_prefix(scope, self._prefix)
        if scope["type"] != "http" or self.middleware_stack is None:
            await super().__call__(scope, receive, send)
        else:
            scope["app"] = self
            await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """The server's own middleware; the one that was added last is the outermost."""
        app: ASGIApp = ProblemMiddleware(Routes(self.router))
        for layer, arguments, options in reversed(self.user_middleware):
            app = layer(app, *arguments, **options)
        return app


async def _start(
    service: Service, on_end: Callable[[Exception], None] | None, on_ready: Callable[[], None] | None
) -> None:
    """Start the service in the background, while the server already answers; a failure goes to `on_end`."""
    try:
        await service.start()
    except Exception as problem:
        if on_end is None:
            raise
        on_end(problem)
    else:
        if on_ready is not None:
            on_ready()


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="The process is alive")
    async def healthz(_: Request) -> Response:
        return json_response({"status": "ok"})

    ready = {"content": {"application/json": {"schema": READY}}}

    @app.get(
        "/readyz",
        summary="Every model is warm and requests are accepted",
        responses={
            200: ready,
            503: {"description": "starting, shutting down, or the engine is stalled or lost", **ready},
        },
    )
    async def readyz(_: Request) -> Response:
        if (reason := service.unready) is not None:
            return json_response({"status": "not ready", "reason": reason}, 503)
        return json_response({"status": "ready"})


def _add_metrics(app: FastAPI, telemetry: RequestTelemetry) -> None:
    @app.get(
        "/metrics",
        summary="Metrics in Prometheus's text format, or OpenMetrics if Accept asks for it",
        response_class=Response,
        responses={200: {"content": METRICS}, 401: PROBLEMS[401]},
    )
    async def metrics(request: Request) -> Response:
        telemetry.metrics.fold()
        content, media_type = await asyncio.to_thread(telemetry.metrics.text, request.headers.get("accept", "").lower())
        return Response(content, media_type=media_type)


def _served(service: Service) -> list[ModelInfo]:
    return [
        ModelInfo(
            served.name,
            served.version,
            served.pipeline.bundle.precision,
            served.pipeline.backend.description,
            service.is_ready,
        )
        for served in service.models.in_service()
    ]
