"""A pytest plugin: the contract tests, unchanged, against replicas behind Ray's proxy instead of a server in the test's process.

    test ─► create_app(models, settings), serving(app) ─► as they are deployed on a cluster of this machine ─► client of Ray's proxy

`make test-ray` says how it is loaded. TEST_BUNDLES: the folder of `make_bundles.py`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import solo_server.http.app as app_module
import support.bundles as bundles_module
import support.serving as serving_module
from solo_server.pipeline.pipeline import Pipeline
from solo_server.ray_serve import cluster
from solo_server.ray_serve.options import RayOptions
from support.not_run import append

INSIDE = "changes objects inside the server's process: replicas have processes of their own"
TWO_SERVERS = "asks two servers in turn: a cluster of Ray has one application at one address"
NOT_ON_RAY = {
    "test_internal_failures_reveal_nothing": INSIDE,
    "test_the_instances_and_the_overlay_come_from_one_inference": INSIDE,
    "test_an_instance_whose_score_equals_the_threshold_is_kept": INSIDE,
    "test_the_client_gets_both_from_one_request": INSIDE,
    "test_head_has_the_status_of_readiness": INSIDE,
    "test_pages_elsewhere_can_read_nothing_unless_their_origin_is_named": TWO_SERVERS,
}
"""Tests that cannot run on Ray: the start of their name, and why. Left out as files: `test_connections.py` and `test_upgrades.py`
(Ray's proxy has the connections, with limits of its own); `test_limits.py`, `test_telemetry.py`, `test_observability.py` (INSIDE).
"""


class Deployed:
    """The cluster of this run; started by the first test that needs it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._port: int | None = None

    def deploy(self, models: Any, settings: Any) -> str:
        if self._port is None:
            self._stack.enter_context(cluster.own_cluster())
            with socket.create_server(("127.0.0.1", 0)) as free:
                self._port = free.getsockname()[1]
        if isinstance(models, Pipeline):
            settings = replace(settings, bundle=BUNDLES[id(models)])
        elif settings.bundle is None and settings.models is None:
            raise RuntimeError("models that are not files: name this test in NOT_ON_RAY")
        return cluster.deploy(settings, RayOptions(), self._port)

    def close(self) -> None:
        self._stack.close()


BUNDLES: dict[int, Path] = {}
DEPLOYED = Deployed()
_KEPT: list[Pipeline] = []
_SERVED: list[tuple[Any, Any]] = []
_open, _create_app = Pipeline.open.__func__, app_module.create_app  # type: ignore[attr-defined]


def _recorded_open(kind: type[Pipeline], path: Path, *arguments: Any, **options: Any) -> Pipeline:
    pipeline: Pipeline = _open(kind, path, *arguments, **options)
    BUNDLES[id(pipeline)] = Path(path)
    _KEPT.append(pipeline)
    return pipeline


def _recorded_app(models: Any, settings: Any = None, *arguments: Any, **options: Any) -> Any:
    app = _create_app(models, settings, *arguments, **options)
    app.state.models = models
    return app


@contextmanager
def _serving_on_ray(app: Any, *_: Any, **__: Any) -> Iterator[httpx.Client]:
    served = app.state.models, app.state.settings
    url = DEPLOYED.deploy(*served)
    _SERVED.append(served)
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client
    _SERVED.remove(served)
    if _SERVED:  # a server of one test, while that of the module waits
        DEPLOYED.deploy(*_SERVED[-1])


Pipeline.open = classmethod(_recorded_open)  # type: ignore[assignment,method-assign]  # before the tests are imported
app_module.create_app = _recorded_app
serving_module.serving = _serving_on_ray
_BUNDLES = Path(os.environ["TEST_BUNDLES"])
bundles_module.tiny_bundle = lambda variant: _BUNDLES / variant


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run, and say so at the end."""
    left_out = {item: why for item in items for name, why in NOT_ON_RAY.items() if item.name.startswith(name)}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))
    append([f"behind Ray's proxy, {item.name}: {why}" for item, why in left_out.items()])


def pytest_unconfigure() -> None:
    """After the last test."""
    DEPLOYED.close()
