"""One replica: `create_app` with its service in a process of Ray's.

constructor ─► settings of this node ─► application, lifespan entered ─► models warm ─► Ray sends requests ─► lifespan left
                         └──────────── a wrong setting or model: StartFailed, one line ────────────┘
Ray, every two seconds ─► check_health: an engine that is stalled or lost fails it, and Ray replaces the replica
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import ray  # pyright: ignore[reportMissingImports]  # the extra `ray`
from fastapi import FastAPI
from solo_models.bundle import BundleError
from starlette.types import ASGIApp

from solo_server.commands.open_pipeline import open_repository
from solo_server.errors import DeviceFailure, SettingsError
from solo_server.http.app import create_app
from solo_server.observability import logs
from solo_server.ray_serve.metrics import RayMetrics
from solo_server.ray_serve.proxy import OneRequestId
from solo_server.service.service import Service
from solo_server.settings import Settings
from solo_server.system.memory import share_one_heap

LOG = logging.getLogger("solo_server")
EXPECTED = (SettingsError, BundleError, DeviceFailure)
METRICS_SECONDS = 5.0


class StartFailed(RuntimeError):
    """A replica cannot start; the message is one line, and names the node."""


class Unhealthy(RuntimeError):
    """A replica must be replaced."""


class Replica:
    """The deployment's class. `serve.ingress` calls `__serve_build_asgi_app__` after the constructor."""

    def __init__(self, given: Mapping[str, Any], deployed_version: str) -> None:
        """given: settings by name; deployed_version: of this package, where the deployment was made."""
        self._given, self._deployed_version = given, deployed_version
        self._started: asyncio.Future[Exception | None] | None = None
        self._service: Service | None = None
        self._metrics: asyncio.Task[None] | None = None

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application, once its models are warm: Ray then calls the replica ready.

        Raises:
            StartFailed: a setting, a model or the package of this node is wrong.
        """
        try:
            return await self._start()
        except EXPECTED as problem:
            raise StartFailed(_one_line(problem)) from None

    async def check_health(self) -> None:
        """Called by Ray every few seconds.

        Raises:
            Unhealthy: the engine is stalled or the GPU is lost.
        """
        if self._service is not None and self._service.unready is not None:
            raise Unhealthy(self._service.not_ready().detail)

    async def _start(self) -> FastAPI:
        share_one_heap()
        settings = node_settings(self._given)
        logs.configure(settings.log_format, settings.log_level)
        _check_version(self._deployed_version)
        started = self._started = asyncio.get_running_loop().create_future()
        app = create_app(open_repository(settings), settings, self._end, on_ready=self._warm)
        app.add_middleware(OneRequestId)
        lifespan = app.router.lifespan_context(app)
        await lifespan.__aenter__()
        problem = await started
        if problem is not None:
            await lifespan.__aexit__(None, None, None)
            raise problem
        self._service = app.state.service
        self._metrics = asyncio.create_task(_report(RayMetrics(app.state.service.observer.metrics)))
        app.router.lifespan_context = self._rest_of(lifespan)
        gc.collect()
        gc.freeze()  # as `solo serve` does
        return app

    def _rest_of(self, lifespan: Any) -> Any:
        """A lifespan for Ray, which enters it after the application has begun to work."""

        @asynccontextmanager
        async def rest(_: FastAPI) -> AsyncIterator[None]:
            yield
            if self._metrics is not None:
                self._metrics.cancel()
            await lifespan.__aexit__(None, None, None)

        return rest

    def _warm(self) -> None:
        """Requests are accepted."""
        if self._started is not None and not self._started.done():
            self._started.set_result(None)

    def _end(self, problem: Exception) -> None:
        """The service cannot start, or cannot go on: `check_health` sees the latter."""
        if self._started is not None and not self._started.done():
            self._started.set_result(problem)
        else:
            LOG.critical("this replica fails its health check, and Ray replaces it: %s", problem)


def node_settings(given: Mapping[str, Any]) -> Settings:
    """Settings of a replica: `given` over `SOLO_*` of its environment. It computes with as many threads as it has cores of Ray.

    Raises:
        SettingsError: a setting is wrong.
    """
    cores = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    return Settings.read(**{**given, "threads": max(1, int(cores)), "workers": 1})


async def _report(metrics: RayMetrics) -> None:
    while True:
        await asyncio.sleep(METRICS_SECONDS)
        await metrics.report()


def _check_version(deployed: str) -> None:
    own = version("solo-inference")
    if own != deployed:
        raise SettingsError(
            f"this node has solo-inference {own}, but {deployed} is deployed: install the same on every node"
        )


def _one_line(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return f"node {ray.util.get_node_ip_address()}: {text}"
