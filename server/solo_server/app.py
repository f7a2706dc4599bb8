"""The FastAPI application: routes, guards, health, metrics; failures as problem+json with a stable code."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from solo_server.bodies import FreeBodies
from solo_server.catalogue import Catalogue, only
from solo_server.errors import RequestError, ServerError, Unavailable
from solo_server.keys import KeyRing
from solo_server.metrics import Metrics, ServedModel
from solo_server.openapi import METRICS, READY
from solo_server.pipeline import Pipeline
from solo_server.problems import problem_body, problem_response
from solo_server.routes import PROBLEMS, add_models, add_segment, json
from solo_server.schemas import invalid_query
from solo_server.security import add_docs, add_guards
from solo_server.service import Service
from solo_server.settings import Settings
from solo_server.sight import Sight, SightMiddleware
from solo_server.traces import Traces
from solo_server.v2.routes import add_v2

LOG = logging.getLogger("solo_server")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def create_app(
    models: Pipeline | Catalogue,
    settings: Settings | None = None,
    on_end: Callable[[Exception], None] | None = None,
    keys: KeyRing | None = None,
    traces: Traces | None = None,
    on_ready: Callable[[], None] | None = None,
) -> FastAPI:
    """The application around models, which are loaded (where that is still to be done) and warmed up when it starts, in a thread.

    on_end: hears what only a new process can mend: a model cannot be loaded, its GPU is lost, its engine hangs. keys: who may
    call; without them the settings tell. traces: where spans of requests go. on_ready: hears when requests are taken.

    Raises:
        SettingsError: the API keys cannot be read.
    """
    settings = settings or Settings()
    sight = Sight(Metrics(lambda: _served(service), among_workers=settings.workers > 1), traces)
    service = Service(only(models) if isinstance(models, Pipeline) else models, settings, on_end, sight)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(_start(service, on_end, on_ready))
        yield
        starting.cancel()
        service.stop()
        if traces is not None:
            await asyncio.to_thread(traces.close)

    app = FastAPI(
        title="SOLO inference server",
        version=version("solo-inference"),
        description="Instance segmentation with SOLO: a picture in, COCO RLE masks out.",
        lifespan=lifespan,
        docs_url=None,  # `add_docs` has its own, under a policy
        redoc_url=None,
    )
    app.state.service, app.state.settings = service, settings
    app.add_middleware(FreeBodies, free=service.free)
    add_docs(app)
    add_guards(app, settings, KeyRing.read(settings) if keys is None else keys)
    app.add_middleware(SightMiddleware, sight=sight)
    app.add_middleware(RequestId)
    _add_handlers(app)
    add_segment(app, service, settings)
    add_models(app, service)
    add_v2(app, service)
    _add_health(app, service)
    _add_metrics(app, sight)
    return app


async def _start(
    service: Service, on_end: Callable[[Exception], None] | None, on_ready: Callable[[], None] | None
) -> None:
    """While the server answers already; a failure is for whoever can end the process."""
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
    async def healthz() -> Response:
        return json({"status": "ok"})

    ready = {"content": {"application/json": {"schema": READY}}}

    @app.get(
        "/readyz",
        summary="Every model is warm and requests are taken",
        responses={200: ready, 503: {"description": "not yet, or not any more", **ready}},
    )
    async def readyz() -> Response:
        if (reason := service.unready) is not None:
            return json({"status": "not ready", "reason": reason}, 503)
        return json({"status": "ready"})

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")


def _add_metrics(app: FastAPI, sight: Sight) -> None:
    @app.get(
        "/metrics",
        summary="Prometheus's text, or OpenMetrics where Accept asks for it",
        response_class=Response,
        responses={200: {"content": METRICS}, 401: PROBLEMS[401]},
    )
    def metrics(request: Request) -> Response:  # not async: it runs in a thread, off the event loop
        content, media_type = sight.metrics.text(request.headers.get("accept", ""))
        return Response(content, media_type=media_type)


def _served(service: Service) -> list[ServedModel]:
    return [
        ServedModel(
            served.name,
            served.version,
            served.pipeline.bundle.precision,
            served.pipeline.backend.description,
            service.is_ready,
        )
        for served in service.models.in_service()
    ]


class RequestId:
    """Gives every request an id, its own or a new one, and every answer the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with `scope["state"]["request_id"]`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


def _add_handlers(app: FastAPI) -> None:
    @app.exception_handler(ServerError)
    async def known(request: Request, problem: ServerError) -> Response:
        if not isinstance(problem, RequestError):
            # refusals come by the hundred and are no fault; the request's own line has their code
            level = logging.DEBUG if isinstance(problem, Unavailable) else logging.WARNING
            LOG.log(level, "request %s: %s: %s", request.state.request_id, problem.code, problem.detail)
        return _problem(request, problem)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, problem: ClientDisconnect) -> Response:
        LOG.info("request %s: the caller went away", request.state.request_id)
        return Response(status_code=499)  # nobody reads it

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, problem: RequestValidationError) -> Response:
        return _problem(request, invalid_query(problem.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, problem: HTTPException) -> Response:
        content = {"type": "about:blank", "title": problem.detail, "status": problem.status_code, "detail": problem.detail,
                   "code": _HTTP_CODES.get(problem.status_code, "http_error"), "request_id": request.state.request_id}  # fmt: skip
        body, media_type = problem_body(content, request.url.path)
        return Response(body, problem.status_code, problem.headers, media_type)

    @app.exception_handler(Exception)
    async def unknown(request: Request, problem: Exception) -> Response:
        LOG.exception("request %s failed", request.state.request_id, exc_info=problem)
        return _problem(request, ServerError("an unexpected failure; the log knows more"))


_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def _problem(request: Request, problem: ServerError) -> Response:
    return problem_response(problem, request.state.request_id, request.url.path)
