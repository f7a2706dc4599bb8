"""The routes below `/roboflow`: models, and segmentation in version 1 (`/infer/...`) and version 0 (`/NAME/VERSION`) of the API."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from solo_server.http.early_bodies import EarlyBodies
from solo_server.http.image_urls import ImageUrls
from solo_server.http.problems import ROBOFLOW
from solo_server.http.roboflow import openapi
from solo_server.http.roboflow.answer import registry_json
from solo_server.http.roboflow.infer import infer, infer_v0, read_json
from solo_server.http.roboflow.requests import read_model_id
from solo_server.http.routing import json_response
from solo_server.service.model_control import find_model
from solo_server.service.model_registry import READY
from solo_server.service.service import Service

_INFER_PROBLEMS = (400, 401, 403, 404, 408, 413, 415, 422, 431, 500, 503, 504)


def add_roboflow(app: FastAPI, service: Service, image_urls: ImageUrls) -> None:
    """Add all routes of the API."""
    early = EarlyBodies(service)
    _add_models(app, service, early)
    _add_infer(app, service, image_urls, early)


def _add_models(app: FastAPI, service: Service, early: EarlyBodies) -> None:
    @app.get(
        f"{ROBOFLOW}/model/registry",
        summary="Roboflow: the models in service",
        responses={200: openapi.REGISTRY, **openapi.problems(401)},
    )
    async def roboflow_registry(_: Request) -> Response:
        return json_response(_registry(service))

    @app.post(
        f"{ROBOFLOW}/model/add",
        summary="Roboflow: the models in service, if the named one is among them",
        responses={200: openapi.REGISTRY, **openapi.problems(400, 401, 404, 408, 413, 422, 431, 503)},
        openapi_extra=openapi.ADD,
    )
    async def roboflow_add(request: Request) -> Response:
        """Loads nothing: `POST /models/{name}/load` does."""
        with early.place(request):
            model_id = read_model_id((await read_json(service, request)).get("model_id"))
        find_model(service, model_id.name, model_id.version)
        return json_response(_registry(service))


def _add_infer(app: FastAPI, service: Service, image_urls: ImageUrls, early: EarlyBodies) -> None:
    responses: dict[int | str, dict[str, Any]] = openapi.problems(*_INFER_PROBLEMS)

    @app.post(
        f"{ROBOFLOW}/infer/instance_segmentation",
        summary="Roboflow: segment images (version 1 of the API)",
        responses={200: openapi.ANSWERS, **responses},
        openapi_extra=openapi.INFER,
    )
    async def roboflow_infer(request: Request) -> Response:
        return await infer(service, image_urls, early, request)

    @app.post(
        f"{ROBOFLOW}/{{name}}/{{version}}",
        summary="Roboflow: segment an image (version 0 of the API)",
        responses={200: openapi.ANSWER, **responses},
        openapi_extra=openapi.INFER_V0,
    )
    async def roboflow_infer_v0(request: Request, name: str, version: str) -> Response:
        if (name, version) == ("model", "registry"):  # which this path covers too
            raise HTTPException(405, headers={"allow": "GET"})
        return await infer_v0(service, request, name, version)


def _registry(service: Service) -> dict[str, Any]:
    """Every model as NAME, which is its highest version, and every version as NAME/VERSION."""
    models: dict[tuple[str, str | None], int] = {}
    for status in service.models.listed():
        if status.served is not None and status.state == READY:
            long_side = status.served.pipeline.bundle.spec.preprocess.long_side
            models[status.name, None] = long_side
            models[status.name, status.version] = long_side
    return registry_json([(name, version, long_side) for (name, version), long_side in models.items()])
