"""What callers ask of models: `POST /segment` and its like for each model, what is served, loading and unloading."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute, APIRouter
from starlette.types import Receive, Scope, Send

from solo_server import types
from solo_server.errors import ControlOff, InvalidQuery, ModelNotLoadable, ServerError
from solo_server.http.accept import is_overlay_wanted
from solo_server.http.bodies import first_header, form_of, read_body, while_connected
from solo_server.http.forms import File
from solo_server.http.openapi import PROBLEM, SEGMENTED
from solo_server.http.wire import (
    DEFAULTS,
    TIMEOUT_KEY,
    Parameters,
    SegmentQuery,
    form_properties,
    gather,
    join_form,
    listed_json,
    model_json,
    openapi_parameters,
    problem_json,
    read_query,
    read_timeout,
    result_json,
)
from solo_server.pipeline.overlay import draw_png, not_drawn
from solo_server.service.execution import Render
from solo_server.service.model_registry import EXPECTED
from solo_server.service.served_model import ServedModel
from solo_server.service.service import AdmittedRequest, Service
from solo_server.settings import Settings

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "properties": {"file": _FILES, **form_properties()}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The bytes of one image, or a form with one or several files and, as fields, the query's parameters.",
        "content": {"image/jpeg": _IMAGE, "image/png": _IMAGE, "image/webp": _IMAGE, "image/avif": _IMAGE,
                    "image/bmp": _IMAGE, "multipart/form-data": {"schema": _FORM}},
    }
}  # fmt: skip
NOT_DRAWN_HEADER = "X-Instances-Not-Drawn"
_ANSWER = {
    "description": "Instances, or the overlay.",
    "headers": {
        NOT_DRAWN_HEADER: {
            "description": "Of overlays: how many instances are not drawn for their score.",
            "schema": {"type": "integer", "minimum": 0},
        }
    },
    "content": {"application/json": {"schema": SEGMENTED}, "image/png": _IMAGE},
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/problem+json": {"schema": PROBLEM}}}
    for status, text in {
        400: "empty_body",
        401: "unauthorized",
        403: "control_off",
        404: "model_not_found",
        406: "not_acceptable",
        408: "request_timeout",
        413: "body_too_large, image_too_large",
        415: "unsupported_media_type",
        422: "image_damaged, invalid_query, model_not_loadable",
        431: "headers_too_large",
        500: "internal",
        503: "overloaded, not_ready",
        504: "deadline_exceeded",
    }.items()
}
"""Of every route, by status: the codes that it can have."""


class DirectRoute(APIRoute):
    """A route whose endpoint gets the request and the path's parts as they are; what it raises is for `Problems`.

    FastAPI's own would make arguments, check answers and keep stacks of things to close: there are none, and it takes its time.
    """

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Response]], **described: Any) -> None:
        super().__init__(path, endpoint, **described)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send), **scope["path_params"])
            await response(scope, receive, send)

        self.app = answer


class Routes:
    """The routes of a router. A path without parts to fill in is found in a table; for all else every route would be tried."""

    def __init__(self, router: APIRouter) -> None:
        self._router = router
        plain = (route for route in router.routes if isinstance(route, DirectRoute) and not route.param_convertors)
        self._plain = {(method, route.path): route for route in plain for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; HEAD as GET, since whoever sends the answer leaves its body out."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        route = self._plain.get(("GET" if is_head else scope["method"], scope["path"]))
        if route is not None:
            scope["route"], scope["path_params"] = route, {}
            await route.app(scope, receive, send)
        elif is_head:
            await self._find_as_get(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    async def _find_as_get(self, scope: Scope, receive: Receive, send: Send) -> None:
        """By the router; who sends the answer must go on to see HEAD, and metrics the route."""
        as_get = {**scope, "method": "GET"}
        try:
            await self._router(as_get, receive, send)
        finally:
            scope["route"] = as_get.get("route")


def add_segment(app: FastAPI, service: Service, settings: Settings) -> None:
    """`POST /segment` for the default model, and the same below every model."""

    async def answer(request: Request, name: str | None, version: str | None) -> Response:
        given = gather(request.query_params.multi_items()) if request.scope["query_string"] else {}
        query = _query(request, given)
        timeout_ms = read_timeout(first_header(request.scope, TIMEOUT_KEY))
        with service.admit(timeout_ms, name, version) as admitted:
            chosen = query.to_query(admitted.model.pipeline.bundle.spec)
            body = await read_body(request, settings.max_body_bytes, service.in_worker)
            form = await form_of(request, body, settings.max_files, service.in_worker)
            files = None if form is None else form.files
            if form is not None and form.fields:
                query = _query(request, join_form(given, gather(form.fields)))
                chosen = query.to_query(admitted.model.pipeline.bundle.spec)
            with while_connected(request):
                if query.format == "overlay":
                    return await _overlay(admitted, _only(body, files), query, chosen)
                if query.overlay:
                    return await _with_overlay(admitted, _only(body, files), query, chosen)
                if files is None or len(files) == 1:
                    return _json_bytes(await admitted.answer(_only(body, files), chosen, _as_json(admitted.model)))
                results = await _several(admitted, files, chosen, request.state.request_id)
                return _json_bytes(await service.in_worker(lambda: orjson.dumps({"results": results})))

    described: dict[str, Any] = {
        "openapi_extra": {**_BODY, "parameters": openapi_parameters()},
        "responses": {200: _ANSWER, **{status: told for status, told in PROBLEMS.items() if status != 403}},
    }

    async def segment(request: Request) -> Response:
        """Instances with label, score, box and COCO RLE mask; a PNG with `format=overlay` or `Accept: image/png`."""
        return await answer(request, None, None)

    async def segment_with(request: Request, name: str) -> Response:
        """Its highest version in service."""
        return await answer(request, name, None)

    async def segment_with_version(request: Request, name: str, version: str) -> Response:
        """Versions are told by `GET /models`."""
        return await answer(request, name, version)

    for path, endpoint, summary in (
        ("/segment", segment, "Segment one image, or several"),
        ("/models/{name}/segment", segment_with, "The same with a model of your choice"),
        ("/models/{name}/versions/{version}/segment", segment_with_version, "The same with one version of a model"),
    ):
        app.add_api_route(path, endpoint, methods=["POST"], summary=summary, **described)


def add_models(app: FastAPI, service: Service) -> None:
    """What is served, and changing it."""
    looked_up: dict[int | str, dict[str, Any]] = {status: PROBLEMS[status] for status in (401, 404, 503)}
    changed: dict[int | str, dict[str, Any]] = {status: PROBLEMS[status] for status in (401, 403, 404, 422, 503)}

    @app.get("/models", summary="All models and versions, with their state", responses={401: PROBLEMS[401]})
    async def models(_: Request) -> Response:
        return json(listed_json(service.models.listed(), service.models.default))

    @app.get("/model", summary="The default model", responses=looked_up)
    async def model(_: Request) -> Response:
        return json(model_json(find_model(service, None, None)))

    @app.get("/models/{name}", summary="A model: its highest version in service", responses=looked_up)
    async def one_model(_: Request, name: str) -> Response:
        return json(model_json(find_model(service, name, None)))

    @app.get("/models/{name}/versions/{version}", summary="One version of a model", responses=looked_up)
    async def one_version(_: Request, name: str, version: str) -> Response:
        return json(model_json(find_model(service, name, version)))

    @app.post(
        "/models/{name}/load", summary="Look for a model anew: load what is new or has changed", responses=changed
    )
    async def load(_: Request, name: str) -> Response:
        """The answer comes when it is in service and warm; until then, and where it fails, what was served before is."""
        return json(await load_model(service, name))

    @app.post("/models/{name}/unload", summary="Take a model out of service, all versions", responses=changed)
    async def unload(_: Request, name: str) -> Response:
        """Its requests are answered; its memory is free when the last one is."""
        return json(await unload_model(service, name))


def find_model(service: Service, name: str | None, version: str | None) -> ServedModel:
    """A model that is in service; without a name the default, without a version the highest.

    Raises:
        UnknownModel: there is none.
        NotReady: it is being loaded, or all are, and nobody knows yet which there will be.
    """
    if service.unready == "warming" and not service.models.in_service():
        raise service.not_ready()
    return service.models.find(name, version)


async def load_model(service: Service, name: str) -> dict[str, Any]:
    """Load a model anew, as the catalogue has it now; all of its versions with their states.

    Raises:
        ControlOff: this server does not do that.
        UnknownModel: the catalogue has none of that name.
        ModelNotLoadable: see there.
    """
    check_control(service)
    try:
        await service.models.load(name)
    except EXPECTED as problem:
        raise ModelNotLoadable(f"model {name[:64]!r} cannot be loaded; the log says why") from problem
    return listed_json(service.models.listed(name), service.models.default)


async def unload_model(service: Service, name: str) -> dict[str, Any]:
    """Take a model out of service; what of it is still at work.

    Raises:
        ControlOff: this server does not do that.
        UnknownModel: there is none of that name.
    """
    check_control(service)
    await service.models.unload(name)
    remaining = [listed for listed in service.models.listed() if listed.name == name]
    return listed_json(remaining, service.models.default)


def check_control(service: Service) -> None:
    """Raises ControlOff where models are changed by whoever runs the server alone."""
    if not service.settings.model_control:
        raise ControlOff("models are not loaded or unloaded over HTTP: SOLO_MODEL_CONTROL is off; SIGHUP reloads them")
    if service.settings.workers > 1:
        raise ControlOff("with several workers one of them would change its models alone; SIGHUP reloads them in all")
    if service.unready is not None:
        raise service.not_ready()


def json(content: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def _query(request: Request, given: Parameters) -> SegmentQuery:
    """What is asked for by parameters and by `Accept`."""
    query = read_query(given) if given else DEFAULTS
    accept = b",".join(value for name, value in request.scope["headers"] if name == b"accept")
    if not accept or not is_overlay_wanted(accept.decode("latin-1"), query.format == "overlay"):
        return query
    return query.model_copy(update={"format": "overlay"})


def _only(body: bytes, files: list[File] | None) -> bytes:
    """The bytes of the one image of a request.

    Raises:
        InvalidQuery: there are several; only overlays ask for one, since that many PNGs would be held at a time.
    """
    if files is None:
        return body
    if len(files) != 1:
        raise InvalidQuery("an overlay is drawn for one image at a time")
    return files[0][1]


async def _overlay(admitted: AdmittedRequest, image: bytes, asked: SegmentQuery, query: types.Query) -> Response:
    """A PNG of one image; instances that are not drawn for their score are counted in a header."""
    names = admitted.model.pipeline.bundle.spec.class_names

    def drawn(result: types.ImageResult, rgb: types.UInt8) -> tuple[bytes, int]:
        below = asked.drawn_from
        return draw_png(rgb, result.instances, names, below), not_drawn(result.instances, below)

    png, count = await admitted.answer(image, query, drawn, for_overlay=True)
    return Response(png, media_type="image/png", headers={NOT_DRAWN_HEADER: str(count)})


async def _with_overlay(admitted: AdmittedRequest, image: bytes, asked: SegmentQuery, query: types.Query) -> Response:
    """The answer for one image in JSON, and the PNG in it: of one inference."""
    model, names = admitted.model, admitted.model.pipeline.bundle.spec.class_names

    def render(result: types.ImageResult, rgb: types.UInt8) -> bytes:
        png = orjson.Fragment(b'"%b"' % b64encode(draw_png(rgb, result.instances, names, asked.drawn_from)))
        answer = result_json(asked.answered(result), model.name, model.version, names)
        return orjson.dumps({**answer, "overlay_png": png})

    return _json_bytes(await admitted.answer(image, query, render, for_overlay=True))


async def _several(admitted: AdmittedRequest, files: list[File], query: types.Query, request_id: str) -> list[Any]:
    """Each file's result, or its own error; the others are not touched."""

    async def one(name: str, body: bytes) -> Any:
        try:
            return orjson.Fragment(await admitted.answer(body, query, _as_json(admitted.model, filename=name)))
        except ServerError as problem:
            return {"filename": name, "error": problem_json(problem, request_id)}

    return await asyncio.gather(*(one(name, body) for name, body in files))


def _as_json(model: ServedModel, **more: str) -> Render[bytes]:
    """The answer for one image, with `more` before it; made in a worker, for it can be large."""
    names = model.pipeline.bundle.spec.class_names
    return lambda result, _: orjson.dumps({**more, **result_json(result, model.name, model.version, names)})


def _json_bytes(content: bytes) -> Response:
    return Response(content, media_type="application/json")
