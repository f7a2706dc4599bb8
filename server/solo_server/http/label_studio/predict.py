"""One `/predict` request: admission, body, then its tasks, a few at a time. A task that fails does not affect the others."""

from __future__ import annotations

import asyncio

import orjson
from fastapi import Request
from fastapi.responses import Response

from solo_server import types
from solo_server.errors import RequestError, ServerError
from solo_server.http.bodies import first_header, in_worker_if_large, read_body, while_connected
from solo_server.http.label_studio.images import TaskImages
from solo_server.http.label_studio.labelling_config import ControlTag
from solo_server.http.label_studio.requests import PredictBody, Task, read_predict, to_query
from solo_server.http.label_studio.results import prediction_json
from solo_server.http.problems import problem_json
from solo_server.http.wire import TIMEOUT_KEY, read_timeout
from solo_server.service.execution import Render
from solo_server.service.served_model import ServedModel
from solo_server.service.service import AdmittedRequest, Service

TASKS_AT_A_TIME = 4
"""Enough to fetch images while others are inferred, and few enough to leave the queue to other callers."""


async def predict(service: Service, images: TaskImages, request: Request, name: str | None) -> Response:
    """The predictions of all tasks, in their order. With one task its failure is that of the request; otherwise it has its error.

    Raises:
        ServerError: see `solo_server.errors`.
        ClientDisconnect: the caller disconnected.
    """
    timeout_ms = read_timeout(first_header(request.scope, TIMEOUT_KEY))
    with service.admit(timeout_ms, name) as admitted:
        predict_body = await _read(service, request)
        query = to_query(predict_body.tags, admitted.model.pipeline.bundle.spec.class_names)
        with while_connected(request):
            predictions = await _predictions(images, admitted, predict_body, query, request.state.request_id)
    return Response(b'{"results":[%b]}' % b",".join(predictions), media_type="application/json")


def version_of(model: ServedModel) -> str:
    """How predictions name the model: `NAME/VERSION`."""
    return f"{model.name}/{model.version}"


async def _read(service: Service, request: Request) -> PredictBody:
    body = await read_body(request, service.settings.max_body_bytes, service.in_worker)
    return await in_worker_if_large(service.in_worker, len(body), lambda: read_predict(body))


async def _predictions(
    images: TaskImages, admitted: AdmittedRequest, body: PredictBody, query: types.Query, request_id: str
) -> list[bytes]:
    is_alone = len(body.tasks) == 1
    places = asyncio.Semaphore(TASKS_AT_A_TIME)
    render = _render(admitted.model, body.tags)

    async def prediction(task: Task) -> bytes:
        try:
            async with places:
                image = await images.image_of(task.image_uri())
                return await admitted.answer(image, query, render)
        except ServerError as problem:
            if isinstance(problem, RequestError):
                problem.detail = f"{task.image_field}: {problem.detail}"
            if is_alone:
                raise
            return orjson.dumps(
                {"error": problem_json(problem, request_id)}
            )  # Label Studio logs it, and skips the task

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(prediction(task)) for task in body.tasks]
    except BaseExceptionGroup as problems:
        raise problems.exceptions[0] from problems
    return [task.result() for task in tasks]


def _render(model: ServedModel, tags: tuple[ControlTag, ...]) -> Render[bytes]:
    """Renders the prediction of one image; runs in a worker, since masks are decoded and encoded."""
    names, version = model.pipeline.bundle.spec.class_names, version_of(model)
    return lambda result, _: orjson.dumps(
        prediction_json(result, tags, names, version), option=orjson.OPT_SERIALIZE_NUMPY
    )
