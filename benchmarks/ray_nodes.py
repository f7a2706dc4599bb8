"""A cluster of two nodes on this machine, each with a replica of one core, for `ray_serve.py`: until SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from pathlib import Path

import ray
from ray import serve
from ray.cluster_utils import Cluster
from solo_server.ray_serve.application import NAME
from solo_server.ray_serve.cluster import deploy
from solo_server.ray_serve.options import RayOptions
from solo_server.ray_serve.proxy import CALLBACK, CALLBACK_PATH
from solo_server.settings import Settings

NODES = 2


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--states", type=Path, help="file that gets a line for each change: seconds, running replicas")
    arguments = parser.parse_args()
    os.environ[CALLBACK] = CALLBACK_PATH
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(NODES - 1):
        cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    serve.start(proxy_location="HeadOnly", http_options={"host": arguments.host, "port": arguments.port})
    deploy(Settings(threads=1), RayOptions(NODES, NODES), arguments.port)
    _watch(arguments.states, stopped)
    ray.shutdown()
    cluster.shutdown()


def _watch(states: Path | None, stopped: threading.Event) -> None:
    running = NODES
    if states is not None:
        states.touch()
    while not stopped.wait(0.2):
        now = serve.status().applications[NAME].deployments[NAME].replica_states.get("RUNNING", 0)
        if states is not None and now != running:
            with states.open("a") as out:
                out.write(f"{time.monotonic()} {now}\n")
        running = now


if __name__ == "__main__":
    main()
