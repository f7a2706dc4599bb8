"""One `infer` request: admission first, then its body, its images concurrently, and the tensors of the answer."""

from __future__ import annotations

import asyncio

from fastapi import Request
from fastapi.responses import Response

from solo_server import types
from solo_server.errors import RequestError
from solo_server.http.bodies import LARGE_BYTES, free_in_worker, read_body, while_connected
from solo_server.http.v2.mask_budget import BudgetedResponse, MaskBudget
from solo_server.http.v2.outputs import InferResults, make_tensors, mask_bytes
from solo_server.http.v2.requests import InferRequest, inflate, read_request
from solo_server.http.v2.tensors import LENGTH_HEADER, write
from solo_server.http.wire import TIMEOUT_HEADER, read_timeout
from solo_server.pipeline.pipeline import Body
from solo_server.service.service import AdmittedRequest, Service


async def infer(service: Service, budget: MaskBudget, request: Request, name: str, version: str | None) -> Response:
    """The answer for all images of a request; if one of them fails, the request fails.

    Raises:
        ServerError: see `solo_server.errors`.
        ClientDisconnect: the caller disconnected.
    """
    timeout_ms = read_timeout(request.headers.get(TIMEOUT_HEADER))
    with service.admit(timeout_ms, name, version) as admitted:
        infer_request = await _read(service, request)
        query = infer_request.query.to_query(admitted.model.pipeline.bundle.spec)
        if infer_request.timeout_s is not None:
            admitted.answer_within(infer_request.timeout_s)
        with while_connected(request):
            image_results = await infer_images(admitted, infer_request, query)
            results = InferResults(image_results, admitted.model.pipeline.bundle.spec.class_names)
            size_bytes = mask_bytes(infer_request.outputs, results)
            budget.reserve(size_bytes)
            try:
                content, json_bytes = await service.in_worker(lambda: _written(admitted, infer_request, results))
            except BaseException:
                budget.release(size_bytes)
                raise
    headers = {} if json_bytes is None else {LENGTH_HEADER: str(json_bytes)}
    media_type = "application/json" if json_bytes is None else "application/octet-stream"
    return BudgetedResponse(content, headers, media_type, budget, size_bytes)


async def infer_images(
    admitted: AdmittedRequest, infer_request: InferRequest, query: types.Query
) -> list[types.ImageResult]:
    """The results of all images, each admitted on its own; the first failure cancels the others.

    Raises:
        ServerError: that of the first image that failed; `detail` names the image.
    """

    async def infer_image(index: int, image: Body) -> types.ImageResult:
        try:
            return await admitted.answer(image, query, lambda result, _: result)
        except RequestError as problem:
            if len(infer_request.images) > 1:
                problem.detail = f"{infer_request.input_name}[{index}]: {problem.detail}"
            raise

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(infer_image(index, image)) for index, image in enumerate(infer_request.images)]
    except BaseExceptionGroup as problems:
        raise problems.exceptions[0] from problems
    return [task.result() for task in tasks]


async def _read(service: Service, request: Request) -> InferRequest:
    limit_bytes, max_images = service.settings.max_body_bytes, service.settings.max_files
    encoding, length = request.headers.get("content-encoding", ""), request.headers.get(LENGTH_HEADER)
    body = await read_body(request, limit_bytes, service.in_worker)

    def read() -> InferRequest:
        return read_request(inflate(body, encoding, limit_bytes), length, max_images)

    if len(body) <= LARGE_BYTES and not encoding:
        return read()
    infer_request = await service.in_worker(read)
    free_in_worker(request, sum(map(_size_bytes, infer_request.images)), *infer_request.images)
    return infer_request


def _size_bytes(image: Body) -> int:
    return len(image) if isinstance(image, bytes) else image.nbytes


def _written(admitted: AdmittedRequest, infer_request: InferRequest, results: InferResults) -> tuple[bytes, int | None]:
    content = {"model_name": admitted.model.name, "model_version": admitted.model.version}
    if infer_request.request_id is not None:
        content["id"] = infer_request.request_id
    return write(content, make_tensors(infer_request.outputs, results))
