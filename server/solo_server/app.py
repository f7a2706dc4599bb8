"""The FastAPI application: `POST /segment`, health, metrics, what is served; failures as problem+json with a stable code."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from solo_models.bundle import Bundle
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from solo_server import types
from solo_server.bodies import File, files_of, read_body, while_connected
from solo_server.errors import InvalidQuery, NotReady, RequestError, ServerError, Unavailable
from solo_server.keys import KeyRing
from solo_server.metrics import Metrics, ServedModel
from solo_server.overlay import draw_png
from solo_server.pipeline import Pipeline
from solo_server.problems import problem_response
from solo_server.schemas import (
    TIMEOUT_HEADER,
    invalid_query,
    model_json,
    openapi_parameters,
    problem_json,
    read_query,
    read_timeout,
    result_json,
)
from solo_server.security import add_docs, add_guards
from solo_server.service import Admitted, Render, Service
from solo_server.settings import Settings
from solo_server.sight import Sight, SightMiddleware
from solo_server.traces import Traces

LOG = logging.getLogger("solo_server")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "object", "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The bytes of one picture, or multipart with one or several files.",
        "content": {"image/jpeg": _PICTURE, "image/png": _PICTURE, "image/webp": _PICTURE, "image/avif": _PICTURE,
                    "image/bmp": _PICTURE, "multipart/form-data": {"schema": _FILES}},
    }
}  # fmt: skip
_ANSWER = {"description": "Instances, or the overlay.", "content": {"application/json": {}, "image/png": _PICTURE}}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/problem+json": {}}}
    for status, text in {
        400: "empty_body",
        401: "unauthorized",
        408: "request_timeout",
        413: "body_too_large, image_too_large",
        415: "unsupported_media_type",
        422: "image_damaged, invalid_query",
        431: "headers_too_large",
        500: "internal",
        503: "overloaded, not_ready",
        504: "deadline_exceeded",
    }.items()
}


def create_app(
    model: Pipeline | Callable[[], Pipeline],
    settings: Settings | None = None,
    on_end: Callable[[Exception], None] | None = None,
    keys: KeyRing | None = None,
    traces: Traces | None = None,
) -> FastAPI:
    """The application around one model, which is loaded (where that is still to be done) and warmed up when it starts, in a thread.

    on_end: hears what only a new process can mend: the model cannot be loaded, its GPU is lost, its engine hangs. keys: who may
    call; without them the settings tell. traces: where spans of requests go.

    Raises:
        SettingsError: the API keys cannot be read.
    """
    settings = settings or Settings()
    sight = Sight(Metrics(lambda: _served(service), among_workers=settings.workers > 1), traces)
    service = Service(model if callable(model) else lambda: model, settings, on_end, sight)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(_start(service, on_end))
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
    add_docs(app)
    add_guards(app, settings, KeyRing.read(settings) if keys is None else keys)
    app.add_middleware(SightMiddleware, sight=sight)
    app.add_middleware(RequestId)
    _add_handlers(app)
    _add_routes(app, service, settings)
    _add_metrics(app, sight)
    return app


async def _start(service: Service, on_end: Callable[[Exception], None] | None) -> None:
    """While the server answers already; a failure is for whoever can end the process."""
    try:
        await service.start()
    except Exception as problem:
        if on_end is None:
            raise
        on_end(problem)


def _add_routes(app: FastAPI, service: Service, settings: Settings) -> None:
    @app.post(
        "/segment",
        openapi_extra={**_BODY, "parameters": openapi_parameters()},
        responses={200: _ANSWER, **_PROBLEMS},
        summary="Segment one picture, or several",
    )
    async def segment(request: Request) -> Response:
        """Instances with label, score, box and COCO RLE mask; a PNG with `format=overlay` or `Accept: image/png`."""
        query = read_query(request.query_params)
        if request.headers.get("accept", "").startswith("image/png"):
            query = query.model_copy(update={"format": "overlay"})
        async with service.admit(read_timeout(request.headers.get(TIMEOUT_HEADER))) as admitted:
            bundle = service.pipeline.bundle
            chosen = query.to_query(bundle.spec)
            body = await read_body(request, settings.max_body_bytes, service.in_worker)
            files = await files_of(request.headers, body, settings.max_files, service.in_worker)
            async with while_connected(request):
                if query.format == "overlay":
                    return await _overlay(admitted, body, files, chosen, bundle)
                if files is None or len(files) == 1:
                    picture = body if files is None else files[0][1]
                    return _answer(await admitted.answer(picture, chosen, _as_json(bundle)))
                results = await _several(admitted, files, chosen, bundle, request.state.request_id)
                return _answer(await service.in_worker(lambda: orjson.dumps({"results": results})))

    @app.get("/healthz", summary="The process is alive")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz", summary="The model is warm and requests are taken", responses={503: _PROBLEMS[503]})
    async def readyz() -> Response:
        if (reason := service.unready) is not None:
            return _json({"status": "not ready", "reason": reason}, 503)
        return _json({"status": "ready"})

    @app.get("/model", summary="What is served", responses={503: _PROBLEMS[503]})
    async def model() -> Response:
        pipeline = service.pipeline
        return _json(model_json(pipeline.bundle, pipeline.backend.description, pipeline.engine_reason))

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")


def _add_metrics(app: FastAPI, sight: Sight) -> None:
    @app.get("/metrics", summary="Prometheus's text, or OpenMetrics where Accept asks for it", response_class=Response)
    def metrics(request: Request) -> Response:  # not async: it runs in a thread, off the event loop
        content, media_type = sight.metrics.text(request.headers.get("accept", ""))
        return Response(content, media_type=media_type)


def _served(service: Service) -> list[ServedModel]:
    try:
        pipeline = service.pipeline
    except NotReady:
        return []
    bundle = pipeline.bundle
    return [ServedModel(bundle.name, bundle.version, bundle.precision, pipeline.backend.description, service.is_ready)]


async def _overlay(
    admitted: Admitted, body: bytes, files: list[File] | None, query: types.Query, bundle: Bundle
) -> Response:
    """A PNG of one picture."""
    if files is not None and len(files) != 1:
        raise InvalidQuery("an overlay is drawn for one picture at a time")
    names = bundle.spec.class_names
    picture = body if files is None else files[0][1]
    png = await admitted.answer(picture, query, lambda result, rgb: draw_png(rgb, result.instances, names), whole=True)
    return _answer(png, "image/png")


async def _several(
    admitted: Admitted, files: list[File], query: types.Query, bundle: Bundle, request_id: str
) -> list[Any]:
    """Each file's result, or its own error; the others are not touched."""

    async def one(name: str, body: bytes) -> Any:
        try:
            return orjson.Fragment(await admitted.answer(body, query, _as_json(bundle, filename=name)))
        except ServerError as problem:
            return {"filename": name, "error": problem_json(problem, request_id)}

    return await asyncio.gather(*(one(name, body) for name, body in files))


def _as_json(bundle: Bundle, **more: str) -> Render[bytes]:
    """The answer for one picture, with `more` before it; made in a worker, for it can be large."""
    return lambda result, _: orjson.dumps({**more, **result_json(result, bundle)})


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
            level = logging.INFO if isinstance(problem, Unavailable) else logging.WARNING  # many at once, and no fault
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
        return _json(content, problem.status_code, "application/problem+json", problem.headers)

    @app.exception_handler(Exception)
    async def unknown(request: Request, problem: Exception) -> Response:
        LOG.exception("request %s failed", request.state.request_id, exc_info=problem)
        return _problem(request, ServerError("an unexpected failure; the log knows more"))


_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def _problem(request: Request, problem: ServerError) -> Response:
    return problem_response(problem, request.state.request_id)


def _json(content: Any, status: int = 200, media_type: str = "application/json", headers: Any = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type)


def _answer(content: bytes, media_type: str = "application/json") -> Response:
    return Response(content, media_type=media_type)
