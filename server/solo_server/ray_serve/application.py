"""The Ray Serve application: `build` is what a Serve config file names in `import_path`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from ray import serve  # pyright: ignore[reportMissingImports]  # the extra `ray`
from ray.serve.config import AutoscalingConfig, BackpressureConfig  # pyright: ignore[reportMissingImports]

from solo_server.ray_serve.options import (
    AUTOSCALING,
    QUEUED,
    RayOptions,
    computed_at_once,
    cores_of,
    gpus_of,
    max_ongoing,
    parse_arguments,
)
from solo_server.ray_serve.replica import Replica
from solo_server.settings import Settings

NAME = "solo"
START_TRIES = 3
HEALTH_PERIOD_S, HEALTH_TIMEOUT_S = 2, 10
"""A replica that fails three health checks in a row is replaced; Ray fixes the three."""
SURGE_PERCENT = 25
"""A redeploy starts new replicas before it stops old ones: at least one, and at most this share of them."""


def build(arguments: Mapping[str, Any]) -> serve.Application:
    """The application of a Serve config file (`deploy/ray/serve.yaml`).

    Raises:
        SettingsError: an argument is wrong.
    """
    given, options = parse_arguments(arguments)
    return application(given, options)


def application(given: Mapping[str, Any], options: RayOptions) -> serve.Application:
    """The application. given: settings by name, as values or texts; each replica adds `SOLO_*` of its own environment.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = Settings.read({}, **given)
    deployment = serve.deployment(serve.ingress()(Replica)).options(
        name=NAME,
        ray_actor_options={"num_cpus": cores_of(settings), "num_gpus": gpus_of(settings, options)},
        max_ongoing_requests=max_ongoing(settings),
        max_queued_requests=QUEUED,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        max_constructor_retry_count=START_TRIES,
        max_surge_percent=SURGE_PERCENT,
        graceful_shutdown_timeout_s=settings.drain_seconds + 5,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        **_replicas(settings, options),
    )
    return deployment.bind(dict(given), version("solo-inference"))


def _replicas(settings: Settings, options: RayOptions) -> dict[str, Any]:
    if options.min_replicas == options.max_replicas:
        return {"num_replicas": options.min_replicas}
    chosen = {"target_ongoing_requests": computed_at_once(settings), **AUTOSCALING, **options.autoscaling}
    config = AutoscalingConfig(min_replicas=options.min_replicas, max_replicas=options.max_replicas, **chosen)
    return {"autoscaling_config": config}
