"""One `infer` request: its place first, then its body, its images side by side, and the answer's tensors."""

from __future__ import annotations

import asyncio

from fastapi import Request
from fastapi.responses import Response

from solo_server import types
from solo_server.errors import RequestError
from solo_server.http.bodies import LARGE_BYTES, hold, read_body, while_connected
from solo_server.http.v2.mask_budget import HeldResponse, MaskBudget
from solo_server.http.v2.outputs import Found, make, mask_bytes
from solo_server.http.v2.requests import InferRequest, inflate, read_request
from solo_server.http.v2.tensors import LENGTH_HEADER, write
from solo_server.http.wire import TIMEOUT_HEADER, read_timeout
from solo_server.pipeline.pipeline import Body
from solo_server.service.service import AdmittedRequest, Service


async def infer(service: Service, room: MaskBudget, request: Request, name: str, version: str | None) -> Response:
    """The answer for all images of a request; if one of them fails, so does the request.

    Raises:
        ServerError: see `solo_server.errors`.
        ClientDisconnect: the caller went away.
    """
    timeout_ms = read_timeout(request.headers.get(TIMEOUT_HEADER))
    with service.admit(timeout_ms, name, version) as admitted:
        asked = await _read(service, request)
        query = asked.query.to_query(admitted.model.pipeline.bundle.spec)
        if asked.timeout_s is not None:
            admitted.answer_within(asked.timeout_s)
        with while_connected(request):
            results = await _results(admitted, asked, query)
            found = Found(results, admitted.model.pipeline.bundle.spec.class_names)
            size_bytes = mask_bytes(asked.wanted, found)
            room.occupy(size_bytes)
            try:
                content, json_bytes = await service.in_worker(lambda: _written(admitted, asked, found))
            except BaseException:
                room.leave(size_bytes)
                raise
    headers = {} if json_bytes is None else {LENGTH_HEADER: str(json_bytes)}
    media_type = "application/json" if json_bytes is None else "application/octet-stream"
    return HeldResponse(content, headers, media_type, room, size_bytes)


async def _read(service: Service, request: Request) -> InferRequest:
    limit_bytes, max_images = service.settings.max_body_bytes, service.settings.max_files
    encoding, length = request.headers.get("content-encoding", ""), request.headers.get(LENGTH_HEADER)
    body = await read_body(request, limit_bytes, service.in_worker)

    def read() -> InferRequest:
        return read_request(inflate(body, encoding, limit_bytes), length, max_images)

    if len(body) <= LARGE_BYTES and not encoding:
        return read()
    asked = await service.in_worker(read)
    hold(request, sum(map(_size_bytes, asked.images)), *asked.images)
    return asked


def _size_bytes(image: Body) -> int:
    return len(image) if isinstance(image, bytes) else image.nbytes


async def _results(admitted: AdmittedRequest, asked: InferRequest, query: types.Query) -> list[types.ImageResult]:
    """Of all images, each of which has a place of its own; the first failure ends the others."""

    async def one(index: int, image: Body) -> types.ImageResult:
        try:
            return await admitted.answer(image, query, lambda result, _: result)
        except RequestError as problem:
            if len(asked.images) > 1:
                problem.detail = f"{asked.input_name}[{index}]: {problem.detail}"
            raise

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(index, image)) for index, image in enumerate(asked.images)]
    except BaseExceptionGroup as problems:
        raise problems.exceptions[0] from problems
    return [task.result() for task in tasks]


def _written(admitted: AdmittedRequest, asked: InferRequest, found: Found) -> tuple[bytes, int | None]:
    content = {"model_name": admitted.model.name, "model_version": admitted.model.version}
    if asked.request_id is not None:
        content["id"] = asked.request_id
    return write(content, make(asked.wanted, found))
