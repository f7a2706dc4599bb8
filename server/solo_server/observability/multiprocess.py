"""The metrics of several worker processes, merged: whichever worker answers a scrape shows the metrics of all.

    worker 0 ─► counter_0.db ... ─┐
    worker 1 ─► counter_1.db ... ─┼─► MultiProcessCollector ─► /metrics of any worker
    supervisor ─► its own ────────┘        and metrics that are in no file, of the worker that answers

Every process keeps its values in files, in a folder that the supervisor makes (`PROMETHEUS_MULTIPROC_DIR`). The files are named by
the worker's number, not its process id: a replacement continues the counters of the worker before it, and files do not pile up. The
gauges of a dead worker are removed.
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
"""How the gauges of several workers are merged: the sum over living workers."""
_MODES: dict[str, Literal["livemax", "livemin"]] = {
    "process_start_time_seconds": "livemax",
    "process_max_fds": "livemin",
}
_READS = 3  # attempts, while a starting worker creates its files


def count_as_worker(number: int) -> None:
    """Metrics that this process creates from now on belong to worker `number`."""
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: number)  # type: ignore[no-untyped-call]  # as its documentation does


def merged_registry(own: CollectorRegistry) -> CollectorRegistry:
    """All workers' metrics, and those metrics of `own` that are in no file.

    Raises:
        ValueError: this process has no supervisor, hence no folder.
    """
    registry = CollectorRegistry()
    registry.register(_Merged(own))
    return registry


class WorkerMetrics:
    """This worker's readiness and process figures, which have to be polled: `update` is called about once a second."""

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
            "1 when at least one worker takes requests.",
            registry=None,
            multiprocess_mode="livemax",
        )
        self._ready_workers = Gauge(
            "solo_workers_ready", "Workers that take requests.", registry=None, multiprocess_mode=SUM
        )
        self._counted_cpu = self._counted_lost = 0.0

    def update(self, *, ready: bool) -> None:
        """Set the current values."""
        self._ready.set(ready)
        self._ready_workers.set(ready)
        for family in self._process.collect():
            value = family.samples[0].value
            if family.name in self._gauges:
                self._gauges[family.name].set(value)
            else:
                self._cpu.inc(max(value - self._counted_cpu, 0.0))
                self._counted_cpu = value
        lost = lost_lines()
        self._lost.inc(lost - self._counted_lost)
        self._counted_lost = lost


class SupervisorMetrics:
    """What the supervisor counts: the workers that should run, and those that were replaced."""

    def __init__(self, folder: str, workers: int) -> None:
        self._folder = os.environ[FOLDER] = folder
        value = values.MultiProcessValue(process_identifier=lambda: "supervisor")  # type: ignore[no-untyped-call]
        text = "Workers that should run."
        value("gauge", "solo_workers", "solo_workers", (), (), text, "mostrecent").set(workers, 1.0)
        text = "Workers that ended and were replaced."
        self._restarts = value("counter", "solo_worker_restarts", "solo_worker_restarts_total", (), (), text)

    def ended(self, number: int) -> None:
        """A worker has ended: remove its gauges, keep its counters."""
        mark_process_dead(number, self._folder)  # type: ignore[no-untyped-call]

    def restarted(self) -> None:
        """A replacement was started."""
        self._restarts.inc(1)


@contextmanager
def metrics_folder() -> Iterator[str]:
    """A new folder for all workers' metrics, removed at the end.

    Raises:
        SettingsError: it cannot be created.
    """
    try:
        folder = TemporaryDirectory(prefix="solo-metrics-", ignore_cleanup_errors=True)
    except OSError as problem:
        raise SettingsError(f"several workers need a temporary folder (TMPDIR): {problem.strerror}") from problem
    with folder as name:
        yield name


def remove_folder() -> None:
    """Remove the folder when the supervisor is gone. Other workers may still write to the deleted files."""
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


class _Merged(Collector):
    def __init__(self, own: CollectorRegistry) -> None:
        self._own = own

    def collect(self) -> Iterator[Metric]:
        """The metrics of all workers, then those that only this process has."""
        merged = _read_all()
        yield from merged
        names = {family.name for family in merged}
        yield from (family for family in self._own.collect() if family.name not in names)


def _read_all() -> list[Metric]:
    for attempt in range(_READS):
        try:
            return list(MultiProcessCollector(None).collect())  # type: ignore[no-untyped-call]
        except struct.error:  # a starting worker has created a file but not written its length yet
            if attempt == _READS - 1:
                raise
    return []
