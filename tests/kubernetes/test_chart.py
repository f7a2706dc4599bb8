"""The Helm chart in many combinations of values, and the overlays, rendered by the real tools and checked against schemas."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml
from render import CHART, OVERLAYS, ROOT, Object, chart, helm, of_kind, overlay, refusal, validate, without_helm

MODELS = {"model.claim": "solo-models", "model.several": True}
KEYS = {"apiKeys.secret": "solo-keys"}
CHOICES: tuple[tuple[Object, ...], ...] = (
    ({}, {"gpu.count": 1, "image.tag": "gpu-local"}),
    ({}, {"autoscaling.enabled": True}),
    ({}, {"model.claim": "solo-models", "model.subPath": "my_bundle"}, MODELS),
    ({}, KEYS, KEYS | {"apiKeys.metricsOpen": False}),
    (
        {},
        {
            "cache.claim": "solo-cache",
            "networkPolicy.from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
            "settings": {"SOLO_MAX_WAITING": 32},
            "image.pullSecrets": ["registry"],
            "nodeSelector": {"pool": "vision"},
            "tolerations": [{"key": "vision", "operator": "Exists"}],
            "podAnnotations": {"team": "vision"},
            "disruptionBudget.enabled": False,
        },
    ),
)
COMBINATIONS = [{key: value for part in parts for key, value in part.items()} for parts in itertools.product(*CHOICES)]


@pytest.mark.parametrize("values", COMBINATIONS, ids=lambda values: ",".join(values) or "defaults")
def test_every_combination_renders_valid_objects(values: Object) -> None:
    found = chart(values)
    assert {one["kind"] for one in found} >= {"Deployment", "Service", "NetworkPolicy"}
    for one in found:
        validate(one)


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert (done.returncode, "[WARNING]" in done.stdout) == (0, False), done.stdout


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("cpu", {"autoscaling.enabled": True}),
        (
            "gpu",
            {"gpu.count": 1, "image.tag": "gpu-local", "cache.claim": "solo-cache", "resources.limits.memory": "16Gi"},
        ),
        ("models", MODELS | KEYS),
    ],
)
def test_an_overlay_is_what_the_chart_renders(name: str, values: Object) -> None:
    found = overlay(name)
    for one in found:
        validate(one)
    assert without_helm(found) == without_helm(chart(values))


def test_there_are_no_other_overlays() -> None:
    assert {path.name for path in OVERLAYS.iterdir()} == {"cpu", "gpu", "models"}


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"replica": 2}, "replica"),
        ({"settings": {"PORT": "1"}}, "PORT"),
        ({"gpu.count": 2}, "gpu"),
        ({"resources.limits.cpu": "500m"}, "cpu"),
        ({"model.several": True}, "claim"),
        ({"autoscaling.enabled": True, "autoscaling.min": 9}, "autoscaling.min is above autoscaling.max"),
        ({"image.tag": ""}, "tag"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(values: Object, word: str) -> None:
    assert word in refusal(values)


def _container(values: Object | None = None) -> Any:  # Any: a part of an object
    return of_kind(chart(values), "Deployment")["spec"]["template"]["spec"]["containers"][0]


def test_the_pod_may_do_no_more_than_it_needs() -> None:
    pod = of_kind(chart(), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    security = _container()["securityContext"]
    assert (security["readOnlyRootFilesystem"], security["allowPrivilegeEscalation"]) == (True, False)
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert [mount["mountPath"] for mount in _container()["volumeMounts"] if not mount.get("readOnly")] == ["/cache"]


def test_user_and_paths_are_those_of_the_image() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    pod = of_kind(chart(MODELS), "Deployment")["spec"]["template"]["spec"]
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in dockerfile
    assert "VOLUME /cache" in dockerfile
    assert "models/solo_models/demo/person /bundle" in dockerfile
    assert "EXPOSE 8000" in dockerfile
    assert _container()["ports"] == [{"name": "http", "containerPort": 8000}]


def test_probes_are_those_of_the_server() -> None:
    container = _container()
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    page = (ROOT / "docs/operations.md").read_text()
    assert all(f"`GET {path}`" in page for path in paths.values())


@pytest.mark.parametrize("seconds", [0, 20, 120])
def test_a_pod_is_killed_only_after_it_has_drained(seconds: int) -> None:
    pod = of_kind(chart({"drainSeconds": seconds}), "Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert {"name": "SOLO_DRAIN_SECONDS", "value": str(seconds)} in container["env"]
    assert pod["terminationGracePeriodSeconds"] >= sleep + seconds + 11  # as stop_grace_period of docker-compose.yml


def test_the_pods_are_those_that_everything_selects() -> None:
    found = chart({"autoscaling.enabled": True})
    deployment = of_kind(found, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        of_kind(found, "Service")["spec"]["selector"],
        of_kind(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        of_kind(found, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(
            one["labelSelector"]["matchLabels"]
            for one in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        ),
    ):
        assert selector.items() <= labels
    scaler = of_kind(found, "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]  # or every upgrade would undo the autoscaler


def test_the_autoscaler_reads_a_metric_of_the_server() -> None:
    metric = of_kind(chart({"autoscaling.enabled": True}), "HorizontalPodAutoscaler")["spec"]["metrics"][0]
    name = metric["pods"]["metric"]["name"]
    assert f"`{name}`" in (ROOT / "docs/operations.md").read_text()
    assert f'"{name}"' in (ROOT / "server/solo_server/observability/metrics.py").read_text()


def test_two_releases_in_a_namespace_do_not_collide() -> None:
    names = [{one["metadata"]["name"] for one in chart(name=name)} for name in ("cats", "dogs")]
    assert names == [{"cats-solo-inference"}, {"dogs-solo-inference"}]


def test_values_of_the_page_are_values_of_the_chart() -> None:
    page = (ROOT / "docs/kubernetes.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for block in page.split("```yaml")[1:]:
        content = yaml.safe_load(block.split("```")[0])
        if isinstance(content, dict) and "kind" not in content and "rules" not in content:
            assert content.keys() <= values.keys()
            for one in chart(content):
                validate(one)
