"""A cluster of two nodes on this machine: a head, which has Ray's proxy, and a node that can be taken away."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import ray
from ray import serve
from ray.cluster_utils import Cluster
from solo_server.ray_serve.application import NAME
from solo_server.ray_serve.proxy import CALLBACK, CALLBACK_PATH


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def two_nodes(cpus: int, port: int, **environment: str) -> Iterator[Cluster]:
    """The cluster, with Ray Serve's proxy on the head. cpus: of each node, as Ray counts them."""
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", CALLBACK: CALLBACK_PATH, **environment})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    cluster.add_node(num_cpus=cpus)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield cluster
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


def replica_processes() -> list[psutil.Process]:
    """Processes of replicas that this process, with its cluster, has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(f"ray::ServeReplica:{NAME}"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_one_replica() -> None:
    replica_processes()[0].send_signal(signal.SIGKILL)


def running_replicas() -> int:
    found = serve.status().applications[NAME].deployments[NAME].replica_states
    return int(found.get("RUNNING", 0))


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)
