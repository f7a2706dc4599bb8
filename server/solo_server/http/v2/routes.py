"""The routes below `/v2`: health, metadata, inference, loading and unloading. Errors have the form of the protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response

from solo_server.errors import EmptyBody, InvalidTensor
from solo_server.http.bodies import read_body
from solo_server.http.routing import json_response
from solo_server.http.v2.infer import infer
from solo_server.http.v2.mask_budget import MaskBudget
from solo_server.http.v2.metadata import model_config, model_metadata, repository_index, server_metadata
from solo_server.http.v2.openapi import INFER, INFERRED, problems
from solo_server.http.v2.tensors import member_bool, member_object
from solo_server.service.model_control import check_control, find_model, load_model, unload_model
from solo_server.service.service import Service

MAX_CONTROL_BYTES = 64 << 10
"""Limit for the JSON of requests for the index, loading and unloading."""

ModelEndpoint = Callable[[Request, str, str | None], Awaitable[Response]]
"""Answers a request about a model, by its name, and its version if the path has one."""


def add_v2(app: FastAPI, service: Service) -> None:
    """Add all routes of the protocol."""
    _add_health(app, service)
    _add_models(app, service)
    _add_infer(app, service)
    _add_repository(app, service)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/v2/health/live", summary="v2: the process is alive")
    async def v2_live(_: Request) -> Response:
        return json_response({"live": True})

    @app.get("/v2/health/ready", summary="v2: every model is warm and requests are accepted", responses=problems(503))
    async def v2_ready(_: Request) -> Response:
        _check_ready(service)
        return json_response({"ready": True})

    @app.get("/v2", summary="v2: the server and its extensions", responses=problems(401))
    async def v2_server(_: Request) -> Response:
        return json_response(server_metadata())


def _add_models(app: FastAPI, service: Service) -> None:
    async def metadata(_: Request, name: str, version: str | None) -> Response:
        served = find_model(service, name, version)
        versions = [status.version for status in service.models.listed(name) if status.served is not None]
        return json_response(model_metadata(served, versions))

    async def ready(_: Request, name: str, version: str | None) -> Response:
        served = find_model(service, name, version)
        _check_ready(service)
        return json_response({"name": served.name, "ready": True})

    async def config(_: Request, name: str, version: str | None) -> Response:
        return json_response(model_config(find_model(service, name, version)))

    options: dict[str, Any] = {"methods": ["GET"], "responses": problems(401, 404, 503)}
    _add_both(app, "", metadata, summary="v2: a model's inputs and outputs", **options)
    _add_both(app, "/ready", ready, summary="v2: a model accepts requests", **options)
    _add_both(app, "/config", config, summary="v2: a model's configuration in Triton's form", **options)


def _add_infer(app: FastAPI, service: Service) -> None:
    budget = MaskBudget(service.settings.max_mask_bytes, service.observer)

    async def respond(request: Request, name: str, version: str | None) -> Response:
        return await infer(service, budget, request, name, version)

    responses = {200: INFERRED, **problems(400, 401, 404, 408, 413, 415, 422, 431, 500, 503, 504)}
    options: dict[str, Any] = {"methods": ["POST"], "openapi_extra": INFER, "responses": responses}
    _add_both(app, "/infer", respond, summary="v2: segment images", **options)


def _add_repository(app: FastAPI, service: Service) -> None:
    control_problems = problems(400, 401, 403, 404, 408, 413, 422, 503)

    @app.post("/v2/repository/index", summary="v2: all models and versions", responses=problems(400, 401, 408, 413))
    async def v2_index(request: Request) -> Response:
        ready_only = member_bool((await _read_json(request, service)).get("ready", False), "ready")
        return json_response(repository_index(service.models.listed(), ready_only=ready_only))

    @app.post(
        "/v2/repository/models/{name}/load",
        summary="v2: load the new and changed versions of a model",
        responses=control_problems,
    )
    async def v2_load(request: Request, name: str) -> Response:
        check_control(service)
        if parameters := member_object((await _read_json(request, service)).get("parameters", {}), "parameters"):
            reason = "models are loaded from the server's own repository, unchanged"
            raise InvalidTensor(f"parameters: {next(iter(parameters))[:60]!r} is not supported: {reason}")
        await load_model(service, name)
        return json_response({})

    @app.post(
        "/v2/repository/models/{name}/unload", summary="v2: take a model out of service", responses=control_problems
    )
    async def v2_unload(request: Request, name: str) -> Response:
        check_control(service)
        await _read_json(request, service)  # Triton's parameter unload_dependents is ignored: models have no dependents
        await unload_model(service, name)
        return json_response({})


def _add_both(app: FastAPI, path: str, endpoint: ModelEndpoint, **options: Any) -> None:
    """A route for the highest version of a model, and one for a version of the caller's choice."""

    async def v2_model(request: Request, name: str) -> Response:
        return await endpoint(request, name, None)

    async def v2_version(request: Request, name: str, version: str) -> Response:
        return await endpoint(request, name, version)

    app.add_api_route(f"/v2/models/{{name}}{path}", v2_model, **options)
    app.add_api_route(f"/v2/models/{{name}}/versions/{{version}}{path}", v2_version, **options)


def _check_ready(service: Service) -> None:
    if not service.is_ready:
        raise service.not_ready()


async def _read_json(request: Request, service: Service) -> dict[str, Any]:
    """The JSON object of a small body; empty if there is no body.

    Raises:
        InvalidTensor: not a JSON object.
        BodyTooLarge: more than `MAX_CONTROL_BYTES`.
    """
    try:
        body = await read_body(request, MAX_CONTROL_BYTES, service.in_worker)
    except EmptyBody:
        return {}
    try:
        return member_object(orjson.loads(body), "the request")
    except orjson.JSONDecodeError as problem:
        raise InvalidTensor("the request is not valid JSON") from problem
