"""The FastAPI application: `POST /segment`, `/healthz`, `/readyz`, `/model`; failures as problem+json with a stable code."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from solo_server import types
from solo_server.errors import BodyTooLarge, DeviceLost, EmptyBody, InvalidQuery, RequestError, ServerError
from solo_server.metrics import Metrics, ServedModel
from solo_server.pipeline import Pipeline
from solo_server.schemas import SegmentQuery, invalid_query, model_json, problem_json, result_json
from solo_server.service import Service
from solo_server.settings import Settings
from solo_server.sight import Sight, SightMiddleware
from solo_server.traces import Traces

LOG = logging.getLogger("solo_server")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
RETRY_AFTER_SECONDS = "1"

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
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/problem+json": {}}}
    for status, text in {
        400: "empty_body",
        413: "body_too_large, image_too_large",
        415: "unsupported_media_type",
        422: "image_damaged, invalid_query",
        503: "overloaded, not_ready",
    }.items()
}


def create_app(
    pipeline: Pipeline,
    settings: Settings | None = None,
    on_lost: Callable[[DeviceLost], None] | None = None,
    traces: Traces | None = None,
) -> FastAPI:
    """The application around one loaded pipeline; it warms up when it starts. on_lost: hears when its GPU is lost for good."""
    settings = settings or Settings()
    service = Service(pipeline, settings.max_waiting, on_lost)
    sight = Sight(Metrics(lambda: [_served(service)]), traces)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        service.stop()
        if traces is not None:
            traces.close()

    app = FastAPI(
        title="SOLO inference server",
        version=pipeline.bundle.version,
        description="Instance segmentation with SOLO: a picture in, COCO RLE masks out.",
        lifespan=lifespan,
    )
    app.state.service, app.state.settings = service, settings
    app.add_middleware(SightMiddleware, sight=sight)
    app.add_middleware(RequestId)
    _add_handlers(app)
    _add_routes(app, service, settings, sight)
    return app


def _add_routes(app: FastAPI, service: Service, settings: Settings, sight: Sight) -> None:
    bundle = service.pipeline.bundle

    @app.post("/segment", openapi_extra=_BODY, responses=_PROBLEMS, summary="Segment one picture, or several")
    async def segment(request: Request, query: Annotated[SegmentQuery, Query()]) -> Response:
        """Instances with label, score, box and COCO RLE mask; a PNG with `format=overlay` or `Accept: image/png`."""
        if request.headers.get("accept", "").startswith("image/png"):
            query = query.model_copy(update={"format": "overlay"})
        chosen = query.to_query(bundle.spec)
        body = await _read_body(request, settings.max_body_bytes)
        files = await _files(request, body, settings.max_files)
        if query.format == "overlay":
            if files is not None and len(files) != 1:
                raise InvalidQuery("an overlay is drawn for one picture at a time")
            content = await service.overlay(body if files is None else files[0][1], chosen)
            return Response(content, media_type="image/png")
        if files is None or len(files) == 1:
            result = await service.segment(body if files is None else files[0][1], chosen)
            sight.found(len(result.instances))
            return _json(result_json(result, bundle))
        request_id = request.state.request_id
        results = await asyncio.gather(*(_one_of_many(service, name, part, chosen, request_id) for name, part in files))
        sight.found(sum(len(r.get("instances", ())) for r in results))
        return _json({"results": results})

    @app.get("/healthz", summary="The process is alive")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz", summary="The model is warm and requests are taken", responses={503: _PROBLEMS[503]})
    async def readyz() -> Response:
        ready = service.is_ready
        return _json({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    @app.get("/metrics", summary="Prometheus's text, or OpenMetrics where Accept asks for it", response_class=Response)
    def metrics(request: Request) -> Response:  # not async: it runs in a thread, off the event loop
        content, media_type = sight.metrics.text(request.headers.get("accept", ""))
        return Response(content, media_type=media_type)

    @app.get("/model", summary="What is served")
    async def model() -> Response:
        return _json(model_json(bundle, service.pipeline.backend.description, service.pipeline.engine_reason))

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")


def _served(service: Service) -> ServedModel:
    bundle = service.pipeline.bundle
    engine = service.pipeline.backend.description
    return ServedModel(bundle.name, bundle.version, bundle.precision, engine, service.is_ready)


async def _one_of_many(service: Service, name: str, body: bytes, query: types.Query, request_id: str) -> dict[str, Any]:
    """One file of several: its result, or its own error; the others are not touched."""
    try:
        return {"filename": name, **result_json(await service.segment(body, query), service.pipeline.bundle)}
    except ServerError as problem:
        return {"filename": name, "error": problem_json(problem, request_id)}


async def _read_body(request: Request, limit_bytes: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit_bytes:
        raise BodyTooLarge(f"the body has {length} bytes; at most {limit_bytes} are accepted")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise BodyTooLarge(f"the body has more than {limit_bytes} bytes")
        chunks.append(chunk)
    if size == 0:
        raise EmptyBody("the request has no body; send the bytes of one picture")
    return b"".join(chunks)


async def _files(request: Request, body: bytes, max_files: int) -> list[tuple[str, bytes]] | None:
    """Name and bytes of each file of a multipart request; `None` where the body is the picture itself."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return None

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = MultiPartParser(request.headers, stream(), max_files=max_files, max_fields=max_files)
        parser.spool_max_size = len(body) + 1  # the body is in memory already and bounded; nothing goes to disk
        form = await parser.parse()
    except MultiPartException as problem:
        raise InvalidQuery(f"the multipart body cannot be read: {problem.message}") from problem
    except KeyError as problem:
        raise InvalidQuery("the multipart body cannot be read: the boundary is missing") from problem
    files = [(v.filename or "", await v.read()) for _, v in form.multi_items() if isinstance(v, UploadFile)]
    await form.close()
    if not files:
        raise EmptyBody("the multipart body holds no file")
    return files


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
            LOG.warning("request %s: %s: %s", request.state.request_id, problem.code, problem.detail)
        return _problem(request, problem)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, problem: ClientDisconnect) -> Response:
        LOG.info("request %s: the caller went away while sending", request.state.request_id)
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
    request_id = request.state.request_id
    headers = {"x-request-id": request_id}
    if problem.status == 503:
        headers["retry-after"] = RETRY_AFTER_SECONDS
    return _json(problem_json(problem, request_id), problem.status, "application/problem+json", headers)


def _json(content: Any, status: int = 200, media_type: str = "application/json", headers: Any = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type)
