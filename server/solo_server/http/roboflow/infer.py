"""Requests for masks: body, key and model id first (version 1 has all three in its body), then admission, images and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import Request
from fastapi.responses import Response

from solo_server.errors import RequestError
from solo_server.http.base64_images import decode_base64
from solo_server.http.bodies import first_header, free_in_worker, in_worker_if_large, read_body, while_connected
from solo_server.http.early_bodies import EarlyBodies
from solo_server.http.image_urls import ImageUrls
from solo_server.http.key_places import check_body_key
from solo_server.http.roboflow.answer import answer_json
from solo_server.http.roboflow.requests import (
    InferBody,
    Options,
    SentImage,
    parse_json,
    read_infer,
    read_options,
)
from solo_server.http.wire import TIMEOUT_KEY, read_timeout
from solo_server.service.execution import Render
from solo_server.service.served_model import ServedModel
from solo_server.service.service import AdmittedRequest, Service
from solo_server.types import Query

IMAGES_AT_A_TIME = 8
"""Images of one request that are fetched and inferred at a time: those behind URLs can be as large as a body."""
HINT = "GET /models lists them"


async def infer(service: Service, image_urls: ImageUrls, early: EarlyBodies, request: Request) -> Response:
    """Version 1: the answer for each image of a body; if one of them fails, the request fails.

    Raises:
        ServerError: see `solo_server.errors`.
        ClientDisconnect: the caller disconnected.
    """
    timeout_ms = read_timeout(first_header(request.scope, TIMEOUT_KEY))
    with early.place(request):
        body = await _read(service, request)
    with service.admit(timeout_ms, body.model_id.name, body.model_id.version) as admitted:
        query = body.options.query.to_query(admitted.model.pipeline.bundle.spec, HINT)

        async def image_of(sent: SentImage) -> bytes:
            if sent.kind == "url":
                return await image_urls.fetch_image(sent.value)
            return await in_worker_if_large(
                service.in_worker, len(sent.value), lambda: decode_base64(sent.value, "value")
            )

        with while_connected(request):
            answers = await _answers(admitted, body, query, image_of)
    content = b"[%b]" % b",".join(answers) if body.is_list else answers[0]
    return Response(content, media_type="application/json")


async def infer_v0(service: Service, request: Request, name: str, version: str) -> Response:
    """Version 0: the answer for the one image of a body of base64; raises what `infer` raises."""
    options = read_options(dict(request.query_params))
    timeout_ms = read_timeout(first_header(request.scope, TIMEOUT_KEY))
    with service.admit(timeout_ms, name, version) as admitted:
        query = options.query.to_query(admitted.model.pipeline.bundle.spec, HINT)
        text = await read_body(request, service.settings.max_body_bytes, service.in_worker)
        image = await in_worker_if_large(
            service.in_worker, len(text), lambda: decode_base64(text.decode("latin-1"), "the body")
        )
        with while_connected(request):
            content = await admitted.answer(image, query, _render(admitted.model, options))
    return Response(content, media_type="application/json")


async def read_json(service: Service, request: Request) -> dict[str, Any]:
    """The JSON object of a body, whose key is checked. Raises what `read_body`, `parse_json` and `check_body_key` raise."""
    body = await read_body(request, service.settings.max_body_bytes, service.in_worker)
    content = await in_worker_if_large(service.in_worker, len(body), lambda: parse_json(body))
    check_body_key(request, content.get("api_key"))
    free_in_worker(request, len(body), content)
    return content


async def _read(service: Service, request: Request) -> InferBody:
    return read_infer(await read_json(service, request), service.settings.max_files)


async def _answers(
    admitted: AdmittedRequest, body: InferBody, query: Query, image_of: Callable[[SentImage], Awaitable[bytes]]
) -> list[bytes]:
    """The JSON of all images, each admitted on its own; the first failure cancels the others."""
    places = asyncio.Semaphore(IMAGES_AT_A_TIME)

    async def answer(sent: SentImage) -> bytes:
        try:
            async with places:
                return await admitted.answer(await image_of(sent), query, _render(admitted.model, body.options))
        except RequestError as problem:
            problem.detail = f"{sent.field}: {problem.detail}"
            raise

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(sent)) for sent in body.images]
    except BaseExceptionGroup as problems:
        raise problems.exceptions[0] from problems
    return [task.result() for task in tasks]


def _render(model: ServedModel, options: Options) -> Render[bytes]:
    """Renders the JSON of one image; runs in a worker, since polygons take long."""
    names = model.pipeline.bundle.spec.class_names
    return lambda result, _: orjson.dumps(answer_json(result, names, options.mask_format))
