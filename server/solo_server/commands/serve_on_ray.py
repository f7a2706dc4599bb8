"""`solo serve --ray`: on a cluster of this machine until stopped, or deployed to a running cluster.

settings ─► port free? ─► cluster: new, or --address ─► cores and GPUs there? ─► deployed ─► ready ─► URL
                                                                                  new cluster: until SIGTERM; else: exit status 0
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from solo_models.install import install_command

from solo_server.errors import SettingsError
from solo_server.exit_codes import NO_CLUSTER, REFUSED
from solo_server.observability import logs
from solo_server.settings import Settings
from solo_server.system.listener import announce, listen

if TYPE_CHECKING:
    from solo_server.ray_serve.options import RayOptions

LOG = logging.getLogger("solo_server")
WATCH_SECONDS, END_SECONDS = 2.0, 20.0


def run_on_ray(given: Mapping[str, Any], on_ray: Mapping[str, Any]) -> int:
    """Deploy, and with a cluster of our own serve until stopped. given: settings of the command line; on_ray: `RAY_OPTIONS`.

    Raises:
        SettingsError: a setting is wrong, or a model cannot be served.
    """
    settings = Settings.read(**given)
    if settings.workers > 1:
        raise SettingsError("--workers: with --ray, replicas take the place of workers (--max-replicas)")
    try:
        from solo_server.ray_serve import cluster
        from solo_server.ray_serve.options import RayOptions
    except ModuleNotFoundError as problem:
        if (problem.name or "").split(".")[0] != "ray":
            raise
        raise SettingsError(f"--ray needs Ray; {install_command('ray')}") from problem
    logs.configure(settings.log_format, settings.log_level)
    fewest = on_ray["min_replicas"] or 1
    options = RayOptions(fewest, on_ray["max_replicas"] or fewest)
    address = on_ray["address"]
    try:
        if address is None:
            return _serve_here(settings, options)
        with cluster.connected(address):
            url = cluster.deploy(settings, options)
            LOG.info("deployed; it stays in service after this command: %s", url)
        return 0
    except cluster.ClusterUnavailable as problem:
        print(f"solo serve: {problem}", file=sys.stderr)
        return NO_CLUSTER
    except cluster.DeployFailed as problem:
        print(f"solo serve: {problem}", file=sys.stderr)
        return REFUSED


def _serve_here(settings: Settings, options: RayOptions) -> int:
    from solo_server.ray_serve import cluster

    listener = listen(settings.host, settings.port)
    port = listener.getsockname()[1]
    stopped = threading.Event()
    with cluster.own_cluster():
        for number in (signal.SIGINT, signal.SIGTERM):  # Ray has just set its own
            signal.signal(number, lambda *_: stopped.set())
        announce(listener, "/segment")
        listener.close()
        cluster.deploy(settings, options, port)
        LOG.info("ready")
        while not stopped.wait(WATCH_SECONDS):
            try:
                cluster.check_alive()
            except cluster.HeadLost as problem:
                _end_in_any_case(problem)
                raise
        LOG.info("shutting down: accepted requests have %d s", settings.drain_seconds)
    return 0


def _end_in_any_case(problem: Exception) -> None:
    """Ray's own end may wait for the head that is gone."""

    def end() -> None:
        print(f"solo serve: {problem}", file=sys.stderr, flush=True)
        os._exit(NO_CLUSTER)

    timer = threading.Timer(END_SECONDS, end)
    timer.daemon = True
    timer.start()
