"""The routes about models: `POST /segment` for the default model and for each model, listing, loading and unloading."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from solo_results.formats import Classes, Context, NamedResult, open_format

from solo_server import types
from solo_server.errors import InvalidQuery, ServerError
from solo_server.http.accept import is_overlay_requested
from solo_server.http.bodies import first_header, form_of, free_in_worker, read_body, while_connected
from solo_server.http.forms import File
from solo_server.http.image_urls import ImageUrls
from solo_server.http.model_listing import model_json, model_list_json
from solo_server.http.openapi import PROBLEMS, SEGMENTED, Responses
from solo_server.http.problems import problem_json
from solo_server.http.routing import json_response
from solo_server.http.url_body import URL_BODY, url_of
from solo_server.http.wire import (
    DEFAULTS,
    TIMEOUT_KEY,
    Parameters,
    SegmentQuery,
    form_properties,
    gather,
    join_form,
    named_result,
    openapi_parameters,
    read_query,
    read_timeout,
    result_json,
)
from solo_server.pipeline.overlay import draw_png, not_drawn
from solo_server.service.execution import Render
from solo_server.service.model_control import find_model, load_model, unload_model
from solo_server.service.served_model import ServedModel
from solo_server.service.service import AdmittedRequest, Service
from solo_server.settings import Settings

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "properties": {"file": _FILES, **form_properties()}}
_TYPES = ("image/jpeg", "image/png", "image/webp", "image/avif", "image/bmp")
NOT_DRAWN_HEADER = "X-Instances-Not-Drawn"
_ANSWER = {
    "description": "The instances as JSON or as PNG, or the overlay as PNG.",
    "headers": {
        NOT_DRAWN_HEADER: {
            "description": "Overlays only: how many instances are not drawn because of their score.",
            "schema": {"type": "integer", "minimum": 0},
        }
    },
    "content": {"application/json": {"schema": SEGMENTED}, "image/png": _IMAGE},
}


def add_segment(app: FastAPI, service: Service, settings: Settings, image_urls: ImageUrls) -> None:
    """`POST /segment` for the default model, and for a model, or one version of it, by name."""

    async def respond(request: Request, name: str | None, version: str | None) -> Response:
        in_query = gather(request.query_params.multi_items()) if request.scope["query_string"] else {}
        request_query = _read_query(request, in_query)
        timeout_ms = read_timeout(first_header(request.scope, TIMEOUT_KEY))
        with service.admit(timeout_ms, name, version) as admitted:
            query = request_query.to_query(admitted.model.pipeline.bundle.spec)
            body = await read_body(request, settings.max_body_bytes, service.in_worker)
            url = url_of(first_header(request.scope, b"content-type"), body, has_urls=image_urls.is_on)
            if url is not None:
                with while_connected(request):
                    body = await image_urls.fetch_image(url)
                free_in_worker(request, len(body), body)
            form = await form_of(request, body, settings.max_files, service.in_worker)
            files = None if form is None else form.files
            if form is not None and form.fields:
                request_query = _read_query(request, join_form(in_query, gather(form.fields)))
                query = request_query.to_query(admitted.model.pipeline.bundle.spec)
            with while_connected(request):
                if request_query.format == "overlay":
                    return await _overlay(admitted, _only_image(body, files), request_query, query)
                if request_query.format in ("coco", "png"):
                    return await _converted(admitted, _only_image(body, files), request_query.format, query)
                if request_query.overlay:
                    return await _json_with_overlay(admitted, _only_image(body, files), request_query, query)
                if files is None or len(files) == 1:
                    image = _only_image(body, files)
                    return _json_bytes(await admitted.answer(image, query, _render_json(admitted.model, request_query)))
                results = await _results(admitted, files, request_query, query, request.state.request_id)
                return _json_bytes(await service.in_worker(lambda: orjson.dumps({"results": results})))

    options: dict[str, Any] = {
        "openapi_extra": {**_body(image_urls.is_on), "parameters": openapi_parameters()},
        "responses": {200: _ANSWER, **PROBLEMS},
    }

    async def segment(request: Request) -> Response:
        """Instances with label, score, box and COCO RLE mask; a PNG with `format=overlay` or `Accept: image/png`."""
        return await respond(request, None, None)

    async def segment_with(request: Request, name: str) -> Response:
        """Uses the highest version in service."""
        return await respond(request, name, None)

    async def segment_with_version(request: Request, name: str, version: str) -> Response:
        """`GET /models` lists the versions."""
        return await respond(request, name, version)

    for path, endpoint, summary in (
        ("/segment", segment, "Segment one or more images"),
        ("/models/{name}/segment", segment_with, "Segment with a model of your choice"),
        ("/models/{name}/versions/{version}/segment", segment_with_version, "Segment with one version of a model"),
    ):
        app.add_api_route(path, endpoint, methods=["POST"], summary=summary, **options)


def add_models(app: FastAPI, service: Service) -> None:
    """Listing, loading and unloading models."""
    find_problems: Responses = {status: PROBLEMS[status] for status in (401, 404, 503)}
    control_problems: Responses = {status: PROBLEMS[status] for status in (401, 403, 404, 422, 503)}

    @app.get("/models", summary="All models and versions, with their states", responses={401: PROBLEMS[401]})
    async def models(_: Request) -> Response:
        return json_response(model_list_json(service.models.listed(), service.models.default))

    @app.get("/model", summary="The default model", responses=find_problems)
    async def model(_: Request) -> Response:
        return json_response(model_json(find_model(service, None, None)))

    @app.get("/models/{name}", summary="A model: its highest version in service", responses=find_problems)
    async def one_model(_: Request, name: str) -> Response:
        return json_response(model_json(find_model(service, name, None)))

    @app.get("/models/{name}/versions/{version}", summary="One version of a model", responses=find_problems)
    async def one_version(_: Request, name: str, version: str) -> Response:
        return json_response(model_json(find_model(service, name, version)))

    @app.post("/models/{name}/load", summary="Load the new and changed versions of a model", responses=control_problems)
    async def load(_: Request, name: str) -> Response:
        """Answers when the model is in service and warm. Until then, and if loading fails, the old versions are served."""
        return json_response(model_list_json(await load_model(service, name), service.models.default))

    @app.post(
        "/models/{name}/unload", summary="Take all versions of a model out of service", responses=control_problems
    )
    async def unload(_: Request, name: str) -> Response:
        """Requests that use it are still answered; its memory is freed after the last one."""
        return json_response(model_list_json(await unload_model(service, name), service.models.default))


def _body(has_urls: bool) -> dict[str, Any]:
    """The body in the OpenAPI document. has_urls: images by URL are switched on."""
    content = {**dict.fromkeys(_TYPES, _IMAGE), "multipart/form-data": {"schema": _FORM}}
    description = "The bytes of one image; or a form with one or more files, and the query parameters as fields"
    if has_urls:
        content["application/json"] = {"schema": URL_BODY}
        description += "; or the URL of an image, which the server fetches"
    return {"requestBody": {"required": True, "description": f"{description}.", "content": content}}


def _read_query(request: Request, parameters: Parameters) -> SegmentQuery:
    """What the parameters and the `Accept` header ask for."""
    query = read_query(parameters) if parameters else DEFAULTS
    accept = b",".join(value for name, value in request.scope["headers"] if name == b"accept")
    if (
        query.format == "png"
        or not accept
        or not is_overlay_requested(accept.decode("latin-1"), query.format == "overlay")
    ):
        return query
    return query.model_copy(update={"format": "overlay"})


def _only_image(body: bytes, files: list[File] | None) -> bytes:
    """The bytes of the one image of a request.

    Raises:
        InvalidQuery: several images. Only overlays are limited to one, because a PNG of each would be in memory at a time.
    """
    if files is None:
        return body
    if len(files) != 1:
        raise InvalidQuery("overlays, format=coco and format=png are for one image at a time")
    return files[0][1]


async def _overlay(
    admitted: AdmittedRequest, image: bytes, request_query: SegmentQuery, query: types.Query
) -> Response:
    """A PNG of one image; a header counts the instances that are not drawn because of their score."""
    names = admitted.model.pipeline.bundle.spec.class_names

    def render(result: types.ImageResult, rgb: types.UInt8) -> tuple[bytes, int]:
        threshold = request_query.overlay_threshold
        png = draw_png(rgb, result.instances, names, threshold, request_query.colour_by)
        return png, not_drawn(result.instances, threshold)

    png, count = await admitted.answer(image, query, render, for_overlay=True)
    return Response(png, media_type="image/png", headers={NOT_DRAWN_HEADER: str(count)})


async def _json_with_overlay(
    admitted: AdmittedRequest, image: bytes, request_query: SegmentQuery, query: types.Query
) -> Response:
    """The JSON of one image with the PNG in it; both come from one inference."""
    model, names = admitted.model, admitted.model.pipeline.bundle.spec.class_names

    def render(result: types.ImageResult, rgb: types.UInt8) -> bytes:
        drawing = draw_png(rgb, result.instances, names, request_query.overlay_threshold, request_query.colour_by)
        png = orjson.Fragment(b'"%b"' % b64encode(drawing))
        kept = request_query.filter_result(result)
        content = result_json(kept, model.name, model.version, names, request_query)
        return orjson.dumps({**content, "overlay_png": png})

    return _json_bytes(await admitted.answer(image, query, render, for_overlay=True))


async def _converted(admitted: AdmittedRequest, image: bytes, name: str, query: types.Query) -> Response:
    """One image in a format of `solo_results.formats`; its COCO image_id is 0."""
    model, names = admitted.model, admitted.model.pipeline.bundle.spec.class_names

    def render(result: types.ImageResult, _: types.UInt8) -> bytes:
        named = NamedResult("0", named_result(result, model.name, model.version, names))
        (file,) = open_format(name).write([named], Context(Classes(names)))
        return file.content

    media_type = "image/png" if name == "png" else "application/json"
    return Response(await admitted.answer(image, query, render), media_type=media_type)


async def _results(
    admitted: AdmittedRequest, files: list[File], request_query: SegmentQuery, query: types.Query, request_id: str
) -> list[Any]:
    """The result of each file, or its error; an error does not affect the other files."""

    async def result_of(name: str, image: bytes) -> Any:
        try:
            render = _render_json(admitted.model, request_query, filename=name)
            return orjson.Fragment(await admitted.answer(image, query, render))
        except ServerError as problem:
            return {"filename": name, "error": problem_json(problem, request_id)}

    return await asyncio.gather(*(result_of(name, image) for name, image in files))


def _render_json(model: ServedModel, query: SegmentQuery, **first: str) -> Render[bytes]:
    """Renders the JSON of one image, with the members `first` before the others; runs in a worker, since it can be large."""
    names = model.pipeline.bundle.spec.class_names
    return lambda result, _: orjson.dumps({**first, **result_json(result, model.name, model.version, names, query)})


def _json_bytes(content: bytes) -> Response:
    return Response(content, media_type="application/json")
