"""The files of `deploy/ray`: the Serve config deployed to a cluster of this machine, the RayService compared with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import yaml
from load import PNG
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
from solo_server.errors import SettingsError
from solo_server.ray_serve.application import build
from solo_server.ray_serve.cluster import own_cluster
from solo_server.ray_serve.proxy import CALLBACK, CALLBACK_PATH
from two_nodes import free_port, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy" / "ray"


def _config() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "serve.yaml").read_text())
    return content


def _ray_service() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "rayservice.yaml").read_text())
    return content


def _metric(name: str) -> str:
    """The series of a metric in Ray's endpoint on the only node."""
    (node,) = ray.nodes()
    page = httpx.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=30).text
    return "\n".join(line for line in page.splitlines() if line.startswith(name + "{"))


def test_the_config_is_deployed_serves_the_demo_model_and_has_our_metrics_in_rays_endpoint() -> None:
    port = free_port()
    config = ServeDeploySchema.model_validate(_config() | {"http_options": {"host": "127.0.0.1", "port": port}})
    with own_cluster():
        serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": port})
        _get_global_client().deploy_apps(config)
        wait_until(lambda: serve.status().applications["solo"].status == "RUNNING", 120)
        answer = httpx.post(f"http://127.0.0.1:{port}/segment", content=PNG, timeout=60)
        deployed = serve.status().applications["solo"].deployments["solo"]
        wait_until(lambda: 'route="/segment"' in _metric("ray_solo_requests_total"), 60)
        series = _metric("ray_solo_request_duration_seconds_bucket")
    assert 'application="solo"' in series
    assert 'replica="' in series
    assert answer.json()["model"]["name"] == "demo-person"
    assert deployed.replica_states == {"RUNNING": 1}


def test_the_ray_service_has_a_config_that_the_builder_accepts() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(_ray_service()["spec"]["serveConfigV2"]))
    assert [application.import_path for application in config.applications] == [
        application["import_path"] for application in _config()["applications"]
    ]
    for application in config.applications:
        build(application.args)


def test_every_pod_wraps_rays_proxy_and_sends_no_statistics() -> None:
    cluster = _ray_service()["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        environment = {one["name"]: one["value"] for one in container["env"]}
        assert environment == {CALLBACK: CALLBACK_PATH, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bundel": "/x"}, "bundel: no such argument"),
        ({"port": 80}, "port: Ray decides this"),
        ({"min_replicas": 0}, "min_replicas: 0 is not a whole number above 0"),
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas: 2 is less than min_replicas, 3"),
        ({"num_gpus": "one"}, "num_gpus: 'one' is not a number"),
        ({"autoscaling": 3}, "autoscaling: not a mapping"),
        ({"max_waiting": 0}, "SOLO_MAX_WAITING"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build(arguments)


def test_a_replica_holds_more_than_it_accepts_and_more_than_it_computes() -> None:
    deployment = build({"threads": 2, "max_waiting": 10, "max_replicas": 4})._bound_deployment
    assert deployment.ray_actor_options["num_cpus"] == 2
    assert deployment.max_ongoing_requests > 10
    assert deployment._deployment_config.autoscaling_config.target_ongoing_requests == 2
