"""Metrics of several worker processes as one: whichever answers a scrape tells of all.

    worker 0 ─► counter_0.db ... ─┐
    worker 1 ─► counter_1.db ... ─┼─► MultiProcessCollector ─► /metrics of any worker
    supervisor ─► its own ────────┘        and what is in no file, of the worker that answers

Every process keeps its values in files of a folder that the supervisor makes (`PROMETHEUS_MULTIPROC_DIR`). They are named by the
worker's number, not its process: the worker in a dead one's place counts on where that one ended, and no files pile up. Gauges of
a dead worker go with it.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from solo_server.errors import SettingsError
from solo_server.observability.logs import lost_lines

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SUM: Final = "livesum"
"""How gauges of several workers become one: their sum, of those that live."""
_MODES: dict[str, Literal["livemax", "livemin"]] = {
    "process_start_time_seconds": "livemax",
    "process_max_fds": "livemin",
}
_READS = 3  # of files that begin to be at this moment


def count_as_worker(number: int) -> None:
    """All metrics that this process makes from now on are those of worker `number`."""
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: number)  # type: ignore[no-untyped-call]  # as its documentation does


def merged_registry(own: CollectorRegistry) -> CollectorRegistry:
    """All workers' metrics, and beside them those of `own` that no worker shares.

    Raises:
        ValueError: this process has no supervisor, hence no folder.
    """
    registry = CollectorRegistry()
    registry.register(_Merged(own))
    return registry


class WorkerMetrics:
    """What this worker tells of itself while it lives, for all that has no value of its own accord: to be updated now and then."""

    def __init__(self) -> None:
        self._process = ProcessCollector(registry=None)
        self._gauges = {
            family.name: Gauge(
                family.name, family.documentation, registry=None, multiprocess_mode=_MODES.get(family.name, SUM)
            )
            for family in self._process.collect()
            if family.type == "gauge"
        }
        self._cpu = Counter("process_cpu_seconds", "Total user and system CPU time spent in seconds.", registry=None)
        self._lost = Counter("solo_log_lines_lost", "Lines of the log that could not be written.", registry=None)
        self._ready = Gauge(
            "solo_ready",
            "1 when requests are taken, by one worker at least.",
            registry=None,
            multiprocess_mode="livemax",
        )
        self._ready_workers = Gauge(
            "solo_workers_ready", "Workers whose requests are taken.", registry=None, multiprocess_mode=SUM
        )
        self._told_cpu = self._told_lost = 0.0

    def update(self, *, ready: bool) -> None:
        """The values of now."""
        self._ready.set(ready)
        self._ready_workers.set(ready)
        for family in self._process.collect():
            value = family.samples[0].value
            if family.name in self._gauges:
                self._gauges[family.name].set(value)
            else:
                self._cpu.inc(max(value - self._told_cpu, 0.0))
                self._told_cpu = value
        lost = lost_lines()
        self._lost.inc(lost - self._told_lost)
        self._told_lost = lost


class SupervisorMetrics:
    """What the supervisor counts: how many workers there are to be, and how many had to be started anew."""

    def __init__(self, folder: str, workers: int) -> None:
        self._folder = os.environ[FOLDER] = folder
        value = values.MultiProcessValue(process_identifier=lambda: "supervisor")  # type: ignore[no-untyped-call]
        told = "Workers that there are to be."
        value("gauge", "solo_workers", "solo_workers", (), (), told, "mostrecent").set(workers, 1.0)
        told = "Workers that ended and were started anew."
        self._restarts = value("counter", "solo_worker_restarts", "solo_worker_restarts_total", (), (), told)

    def ended(self, number: int) -> None:
        """A worker is no more: what it held is not there any more, what it counted is."""
        mark_process_dead(number, self._folder)  # type: ignore[no-untyped-call]

    def restarted(self) -> None:
        """A worker was started in another's place."""
        self._restarts.inc(1)


@contextmanager
def metrics_folder() -> Iterator[str]:
    """A new folder for all workers' metrics, and no more of it afterwards.

    Raises:
        SettingsError: there is no place for it.
    """
    try:
        folder = TemporaryDirectory(prefix="solo-metrics-", ignore_cleanup_errors=True)
    except OSError as problem:
        raise SettingsError(f"several workers need a temporary folder (TMPDIR): {problem.strerror}") from problem
    with folder as name:
        yield name


def remove_folder() -> None:
    """Where the supervisor cannot any more. What other workers still write goes to files without a name."""
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


class _Merged(Collector):
    def __init__(self, own: CollectorRegistry) -> None:
        self._own = own

    def collect(self) -> Iterator[Metric]:
        """Of all workers, then what only this process knows."""
        merged = _read_all()
        yield from merged
        names = {family.name for family in merged}
        yield from (family for family in self._own.collect() if family.name not in names)


def _read_all() -> list[Metric]:
    for attempt in range(_READS):
        try:
            return list(MultiProcessCollector(None).collect())  # type: ignore[no-untyped-call]
        except struct.error:  # a worker that starts has made a file, and not yet its length
            if attempt == _READS - 1:
                raise
    return []
