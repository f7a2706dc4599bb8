"""The routes below `/label-studio`, for the default model and for each model by name: what Label Studio asks of an ML backend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from solo_server.errors import NotReady
from solo_server.http.bodies import in_worker_if_large, read_body
from solo_server.http.image_urls import ImageUrls
from solo_server.http.key_places import LABEL_STUDIO
from solo_server.http.label_studio.images import TaskImages
from solo_server.http.label_studio.openapi import BODY_PROBLEMS, HEALTH, PREDICT, PREDICTED, SETUP, STATE, VERSIONS
from solo_server.http.label_studio.predict import predict, version_of
from solo_server.http.label_studio.requests import read_setup, to_query
from solo_server.http.openapi import PROBLEMS, Responses
from solo_server.http.routing import json_response
from solo_server.service.model_control import find_model
from solo_server.service.service import Service

Endpoint = Callable[[Request, str | None], Awaitable[Response]]
"""Answers a request about a model, by its name if the path has one."""


def add_label_studio(app: FastAPI, service: Service, image_urls: ImageUrls) -> None:
    """Add all routes of the backend. None of them keeps anything, so that several workers can share the requests of a project."""

    images = TaskImages.read(service.settings, image_urls, service.in_worker)

    async def health(_: Request, name: str | None) -> Response:
        """Also while models are loaded: Label Studio waits a second for this, and would take the backend for broken."""
        _version(service, name)
        return json_response({"status": "UP"})

    async def setup(request: Request, name: str | None) -> Response:
        return json_response({"model_version": await _set_up(service, request, name)})

    async def versions(_: Request, name: str | None) -> Response:
        return json_response({"versions": [version for version in [_version(service, name)] if version]})

    async def respond(request: Request, name: str | None) -> Response:
        return await predict(service, images, request, name)

    async def webhook(_: Request, name: str | None) -> Response:
        """Training is not done here; events are acknowledged and nothing else."""
        _version(service, name)
        return json_response({})

    known: Responses = {status: PROBLEMS[status] for status in (401, 404)}
    add = _Adder(app)
    add("GET", "/health", health, "the backend is there", responses={200: HEALTH, **known})
    add("GET", "/versions", versions, "the model's version", responses={200: VERSIONS, **known})
    add(
        "POST",
        "/setup",
        setup,
        "check a labelling configuration",
        responses={200: STATE, **BODY_PROBLEMS, **known},
        openapi_extra=SETUP,
    )
    add(
        "POST",
        "/predict",
        respond,
        "segment the images of tasks",
        responses={200: PREDICTED, **BODY_PROBLEMS, **known},
        openapi_extra=PREDICT,
    )
    add("POST", "/webhook", webhook, "acknowledge an event", responses=known)


class _Adder:
    """Adds a route for the default model, and one for a model of the caller's choice."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def __call__(self, method: str, path: str, endpoint: Endpoint, summary: str, **options: Any) -> None:
        async def label_studio(request: Request) -> Response:
            return await endpoint(request, None)

        async def label_studio_model(request: Request, name: str) -> Response:
            return await endpoint(request, name)

        options |= {"methods": [method], "summary": f"Label Studio: {summary}"}
        self._app.add_api_route(f"{LABEL_STUDIO}{path}", label_studio, **options)
        self._app.add_api_route(f"{LABEL_STUDIO}/{{name}}{path}", label_studio_model, **options)


async def _set_up(service: Service, request: Request, name: str | None) -> str:
    """Check the labelling configuration, against the model's classes too unless it is still being loaded. Returns its version."""
    body = await read_body(request, service.settings.max_body_bytes, service.in_worker)
    tags = await in_worker_if_large(service.in_worker, len(body), lambda: read_setup(body))
    version = _version(service, name)
    if version:
        to_query(tags, find_model(service, name, None).pipeline.bundle.spec.class_names)
    return version


def _version(service: Service, name: str | None) -> str:
    """How predictions name the model; empty while it is loaded. Raises UnknownModel."""
    try:
        return version_of(find_model(service, name, None))
    except NotReady:
        return ""
