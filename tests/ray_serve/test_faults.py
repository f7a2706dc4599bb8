"""What callers get while replicas and nodes come and go: an answer, or our 503."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from load import PNG, Load, calling
from ray.cluster_utils import Cluster
from solo_models.bundle import read_bundle
from solo_server.ray_serve.cluster import ClusterUnavailable, DeployFailed, deploy
from solo_server.ray_serve.options import RayOptions
from solo_server.settings import Settings
from two_nodes import free_port, kill_one_replica, running_replicas, two_nodes, wait_until

BUNDLES = Path(os.environ["TEST_BUNDLES"])
SETTINGS = Settings(bundle=BUNDLES / "solo", threads=1)
VERSION = {name: read_bundle(BUNDLES / name).version for name in ("solo", "decoupled")}
PORT = free_port()
URL = f"http://127.0.0.1:{PORT}"
QUICK = {"upscale_delay_s": 1, "downscale_delay_s": 1, "look_back_period_s": 2, "metrics_interval_s": 0.5}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with two_nodes(2, PORT) as cluster:
        yield cluster


def _check_no_word_of_ray(load: Load) -> None:
    """Nothing was lost, and whatever is no answer is a problem of ours that says when to come back."""
    assert load.lost == []
    assert {(status, has_retry_after) for status, _, has_retry_after in load.others} <= {(503, True)}
    assert {code for _, code, _ in load.others} <= {"overloaded", "not_ready"}


def test_a_killed_replica_is_replaced_and_callers_get_answers_or_503(cluster: Cluster) -> None:
    deploy(SETTINGS, RayOptions(2, 2), PORT)
    with calling(URL, 4) as load:
        kill_one_replica()
        wait_until(lambda: running_replicas() < 2)
        load.until_answered(10)
        wait_until(lambda: running_replicas() == 2)
        load.until_answered(100)
    _check_no_word_of_ray(load)
    assert sum(load.others.values()) <= 4  # those in its hands


def test_a_redeploy_with_a_new_bundle_loses_nothing(cluster: Cluster) -> None:
    deploy(SETTINGS, RayOptions(), PORT)
    with calling(URL, 3) as load:
        deploy(replace(SETTINGS, bundle=BUNDLES / "decoupled"), RayOptions(), PORT)
        load.until_answered(20)
    assert (load.lost, dict(load.others)) == ([], {})
    assert set(load.versions) == set(VERSION.values())
    assert httpx.post(f"{URL}/segment", content=PNG, timeout=30).json()["model"]["version"] == VERSION["decoupled"]


def test_a_bundle_that_cannot_be_loaded_leaves_the_old_one_serving(cluster: Cluster, tmp_path: Path) -> None:
    deploy(SETTINGS, RayOptions(), PORT)
    with calling(URL, 2) as load:
        with pytest.raises(DeployFailed, match=rf"^node [0-9.]+: .*{tmp_path}/missing") as failed:
            deploy(replace(SETTINGS, bundle=tmp_path / "missing"), RayOptions(), PORT)
        assert "\n" not in str(failed.value)
        load.until_answered(20)
    assert (load.lost, dict(load.others), set(load.versions)) == ([], {}, {VERSION["solo"]})


def test_replicas_come_and_go_with_the_load_and_nothing_is_lost(cluster: Cluster) -> None:
    deploy(SETTINGS, RayOptions(1, 3, autoscaling={**QUICK, "target_ongoing_requests": 1}), PORT)
    with calling(URL, 6) as load:
        wait_until(lambda: running_replicas() == 3)
        load.until_answered(20)
    with calling(URL, 1) as light:
        wait_until(lambda: running_replicas() == 1)
        light.until_answered(20)
    for one in (load, light):
        assert (one.lost, dict(one.others)) == ([], {})


def test_overload_is_answered_with_our_503(cluster: Cluster) -> None:
    deploy(replace(SETTINGS, max_waiting=2), RayOptions(), PORT)
    with calling(URL, 10) as load:
        load.until_answered(50)
    _check_no_word_of_ray(load)
    assert (503, "overloaded", True) in load.others


def test_a_body_at_the_limit_is_received_and_one_above_it_is_413(cluster: Cluster) -> None:
    deploy(replace(SETTINGS, max_body_bytes=8 << 20), RayOptions(), PORT)
    body = PNG
    at_limit = httpx.post(f"{URL}/segment", content=body + bytes((8 << 20) - len(body)), timeout=60)
    above = httpx.post(f"{URL}/segment", content=body + bytes((8 << 20) - len(body) + 1), timeout=60)
    assert (at_limit.status_code, above.status_code) == (200, 413)
    assert above.json()["code"] == "body_too_large"


def test_a_replica_that_no_node_can_have_is_refused_in_one_line(cluster: Cluster) -> None:
    for settings, options, what in (
        (SETTINGS, RayOptions(num_gpus=1), "1 GPU"),
        (replace(SETTINGS, threads=64), RayOptions(), "64 CPU"),
    ):
        with pytest.raises(
            ClusterUnavailable, match=f"^a replica needs {what}, and no node of the Ray cluster has more"
        ):
            deploy(settings, options, PORT)


def test_a_node_that_is_lost_takes_nothing_but_what_it_had_begun(cluster: Cluster) -> None:
    """Last: the node is gone afterwards."""
    deploy(SETTINGS, RayOptions(2, 2), PORT)
    with calling(URL, 4) as load:
        cluster.remove_node(next(iter(cluster.worker_nodes)))
        load.until_answered(30)
        wait_until(lambda: running_replicas() == 2)
        load.until_answered(100)
    _check_no_word_of_ray(load)
