"""How many replicas there are, what each takes of its node, and how many requests it may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from solo_server.engine_names import GPU_ENGINES
from solo_server.errors import SettingsError
from solo_server.settings import SETTINGS, Settings

REFUSALS = 64
"""Requests that a replica may hold beyond `max_waiting`: those that it refuses, and probes."""
QUEUED = 1000
"""Requests that each proxy holds while every replica is full. Beyond that Ray itself answers 503."""
AUTOSCALING = {"metrics_interval_s": 2, "look_back_period_s": 6, "upscale_delay_s": 4, "downscale_delay_s": 300}
BATCH_ON_A_GPU, SLOTS_ON_A_GPU = 8, 2
PLACED_BY_RAY = ("workers", "host", "port", "gpu")
"""Settings that the command line alone reads, or that Ray decides: `serve.yaml` cannot have them."""


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Replicas of a deployment. num_gpus: of each; `None`: one for an engine on a GPU. autoscaling: fields of Ray's
    `AutoscalingConfig` that replace ours."""

    min_replicas: int = 1
    max_replicas: int = 1
    num_gpus: float | None = None
    autoscaling: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("min_replicas", "max_replicas"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise SettingsError(f"{name}: {value!r} is not a whole number above 0")
        if self.max_replicas < self.min_replicas:
            raise SettingsError(f"max_replicas: {self.max_replicas} is less than min_replicas, {self.min_replicas}")
        if self.num_gpus is not None and (not isinstance(self.num_gpus, int | float) or self.num_gpus < 0):
            raise SettingsError(f"num_gpus: {self.num_gpus!r} is not a number from 0")
        if not isinstance(self.autoscaling, Mapping):
            raise SettingsError("autoscaling: not a mapping of fields of Ray's AutoscalingConfig")


def parse_arguments(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], RayOptions]:
    """Arguments of an application in a Serve config file: settings of the server, and options of Ray.

    Raises:
        SettingsError: an argument is unknown, has a wrong value, or is decided by Ray.
    """
    of_ray = {one.name for one in fields(RayOptions)}
    for name in arguments:
        if name in PLACED_BY_RAY:
            raise SettingsError(f"{name}: Ray decides this; see docs/ray.md")
        if name not in of_ray and name not in SETTINGS:
            raise SettingsError(
                f"{name}: no such argument; {', '.join(sorted(of_ray))}, or a setting of docs/deployment.md"
            )
    settings = {name: value for name, value in arguments.items() if name not in of_ray}
    return settings, RayOptions(**{name: value for name, value in arguments.items() if name in of_ray})


def cores_of(settings: Settings) -> int:
    """Cores of a replica: Ray's `num_cpus`, and the threads that it computes with."""
    return settings.threads or 1


def gpus_of(settings: Settings, options: RayOptions) -> float:
    """GPUs of a replica."""
    if options.num_gpus is not None:
        return options.num_gpus
    return 1 if settings.engine in GPU_ENGINES else 0


def computed_at_once(settings: Settings) -> int:
    """Images that a replica computes at the same time; docs/deployment.md has the defaults of `SOLO_SLOTS` and `SOLO_MAX_BATCH`."""
    if settings.engine in GPU_ENGINES:
        return (settings.max_batch or BATCH_ON_A_GPU) * (settings.slots or SLOTS_ON_A_GPU)
    return (settings.max_batch or 1) * (settings.slots or cores_of(settings)) * settings.replicas


def max_ongoing(settings: Settings) -> int:
    """Requests that a replica holds: more than it accepts, so that it, and not Ray, refuses what is too much."""
    return max(2 * computed_at_once(settings), settings.max_waiting + REFUSALS)
