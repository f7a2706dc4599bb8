"""A Ray cluster: one of our own, or a running one; and deployment to it, with each failure as one line."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import ray  # pyright: ignore[reportMissingImports]  # the extra `ray`
from ray import serve  # pyright: ignore[reportMissingImports]
from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
from ray.serve.api import _run  # pyright: ignore[reportMissingImports]  # `serve.run` would wait for ever for a missing GPU
from ray.serve.schema import ApplicationStatus  # pyright: ignore[reportMissingImports]

from solo_server.ray_serve.application import NAME, application
from solo_server.ray_serve.options import RayOptions, cores_of, gpus_of
from solo_server.ray_serve.proxy import CALLBACK, CALLBACK_PATH
from solo_server.settings import Settings
from solo_server.system.cores import cores

LOG = logging.getLogger("solo_server")
POLL_SECONDS, REACH_SECONDS = 0.3, 5.0
_CAUSE = re.compile(r"(?:StartFailed|SettingsError|ModuleNotFoundError): (.+)")


class ClusterUnavailable(Exception):
    """The cluster cannot be reached, has ended, or lacks what a replica needs."""


class HeadLost(ClusterUnavailable):
    """The head of our own cluster has ended."""


class DeployFailed(Exception):
    """Ray gave up starting replicas; the message has the last one's reason. What was deployed before goes on serving."""


@contextmanager
def own_cluster() -> Iterator[None]:
    """A cluster on this machine, which ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(CALLBACK, CALLBACK_PATH)
    ray.init("local", num_cpus=cores(), include_dashboard=False, logging_level=logging.WARNING)
    has_head = True
    try:
        yield
    except HeadLost:
        has_head = False
        raise
    finally:
        if has_head:
            serve.shutdown()
        ray.shutdown()


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to a running cluster. address: `auto`, or `HOST:PORT` of its head.

    Raises:
        ClusterUnavailable: nothing answers there.
    """
    try:
        _reach(address)
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, RayError) as problem:
        first = str(problem).strip().partition("\n")[0].partition(". ")[0]
        raise ClusterUnavailable(
            f"no Ray cluster at {address!r}: {first}; start one with `ray start --head`, or leave --address out"
        ) from problem
    try:
        yield
    finally:
        ray.shutdown()


def deploy(settings: Settings, options: RayOptions, port: int | None = None) -> str:
    """Deploy to the cluster that this process is connected to, and wait until requests are answered. Returns the URL.

    Raises:
        ClusterUnavailable: no node can have a replica, or the cluster ended.
        DeployFailed: see there.
    """
    _check_resources(settings, options)
    try:
        serve.start(proxy_location="EveryNode", http_options={"host": settings.host, "port": port or settings.port})
        _run(application(changed_settings(settings), options), _blocking=False, name=NAME, route_prefix="/")
        _wait()
        return f"http://{settings.host}:{port or settings.port}"
    except RayError as problem:
        raise ClusterUnavailable(f"the Ray cluster does not answer: {_line(str(problem))}") from problem


def check_alive() -> None:
    """Look whether the head is there: Ray itself would try for a minute, and then end the process without a word of ours.

    Raises:
        HeadLost: it is not.
    """
    try:
        _reach(ray.get_runtime_context().gcs_address)
    except OSError as problem:
        raise ClusterUnavailable(
            f"the head of the Ray cluster has ended ({problem.strerror}): start again"
        ) from problem


def changed_settings(settings: Settings) -> dict[str, Any]:
    """The settings that are not defaults, with paths that are valid from any folder."""
    defaults = Settings()
    given = {one.name: getattr(settings, one.name) for one in fields(settings)}
    return {
        name: str(value.absolute()) if isinstance(value, Path) else value
        for name, value in given.items()
        if value != getattr(defaults, name)
    }


def _reach(address: str) -> None:
    """Ray itself would try for minutes, and end the process. Raises `OSError` if nothing listens at HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()


def _check_resources(settings: Settings, options: RayOptions) -> None:
    needs = {"CPU": float(cores_of(settings)), "GPU": float(gpus_of(settings, options))}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, amount in needs.items():
        most = max((node.get(kind, 0.0) for node in nodes), default=0.0)
        if most < amount:
            raise ClusterUnavailable(
                f"a replica needs {amount:g} {kind}, and no node of the Ray cluster has more than {most:g}"
            )


def _wait() -> None:
    while True:
        found = serve.status().applications.get(NAME)
        if found is not None:
            if found.status == ApplicationStatus.RUNNING:
                return
            if found.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
                texts = [found.message, *(deployment.message for deployment in found.deployments.values())]
                raise DeployFailed(cause("\n".join(texts)))
        time.sleep(POLL_SECONDS)


def cause(message: str) -> str:
    """The line that says why, of a status message of Ray, which has a traceback."""
    found = _CAUSE.findall(message)
    return str(found[-1]).strip() if found else _line(message)


def _line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
