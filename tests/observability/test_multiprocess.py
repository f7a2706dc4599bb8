"""Metrics of several workers: any worker answers a scrape with all of them, and a dead worker's counts are kept."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import values
from prometheus_client.multiprocess import MultiProcessCollector
from solo_server.observability.metrics import Metrics
from solo_server.observability.multiprocess import (
    FOLDER,
    SupervisorMetrics,
    WorkerMetrics,
    count_as_worker,
    metrics_folder,
)
from support.small_app import MODEL, Samples, samples, value


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    yield tmp_path
    values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]


def worker(number: int) -> Metrics:
    """The metrics of a new worker; this process plays several workers."""
    count_as_worker(number)
    return Metrics(lambda: [MODEL], among_workers=True)


def scraped(metrics: Metrics, *others: Metrics) -> Samples:
    for each in (metrics, *others):
        each.fold()
    return samples(metrics.text()[0].decode())


def test_every_worker_answers_with_the_metrics_of_all() -> None:
    first, second = worker(0), worker(1)
    first.answered("tiny", "ok", 30.0)
    second.answered("tiny", "ok", 700.0)
    second.answered("tiny", "gone", 1.0)
    first.waiting(2, 1000)
    second.waiting(3, 500)
    found = scraped(first, second)
    here = {key: number for key, number in found.items() if key[0].startswith("solo_")}
    assert here == {key: number for key, number in scraped(second).items() if key[0].startswith("solo_")}
    assert value(found, "solo_images_total", model="tiny", outcome="ok") == 2
    assert value(found, "solo_images_total", model="tiny", outcome="gone") == 1
    assert value(found, "solo_image_duration_seconds_count", model="tiny") == 3
    assert value(found, "solo_image_duration_seconds_sum", model="tiny") == pytest.approx(0.731)
    assert value(found, "solo_image_duration_seconds_bucket", model="tiny", le="0.05") == 2
    assert (value(found, "solo_waiting_images"), value(found, "solo_waiting_pixels")) == (5, 1500)


def test_a_replacement_continues_the_counters_and_drops_the_gauges(folder: Path) -> None:
    supervisor = SupervisorMetrics(str(folder), 2)
    other, dead = worker(0), worker(1)
    dead.answered("tiny", "ok", 1.0)
    dead.waiting(4, 4000)
    dead.fold()
    other.waiting(1, 100)
    files = sorted(file.name for file in folder.iterdir())
    supervisor.ended(1)
    assert value(scraped(other), "solo_waiting_images") == 1
    assert value(scraped(other), "solo_images_total", model="tiny", outcome="ok") == 1
    supervisor.restarted()
    replacement = worker(1)
    replacement.answered("tiny", "ok", 1.0)
    replacement.fold()
    found = scraped(other)
    assert value(found, "solo_images_total", model="tiny", outcome="ok") == 2
    assert (value(found, "solo_workers"), value(found, "solo_worker_restarts_total")) == (2, 1)
    assert sorted(file.name for file in folder.iterdir()) == files  # files do not pile up


def test_process_figures_are_merged(folder: Path) -> None:
    alone = WorkerMetrics()
    metrics = worker(0)
    WorkerMetrics().update(ready=True)
    one = scraped(metrics)
    count_as_worker(1)
    second = WorkerMetrics()
    second.update(ready=False)
    second.update(ready=False)
    both = scraped(metrics)
    assert alone is not second
    assert (value(one, "solo_workers_ready"), value(both, "solo_workers_ready")) == (1, 1)
    assert (value(one, "solo_ready"), value(both, "solo_ready")) == (1, 1)
    for name, least in (("process_resident_memory_bytes", 1.8), ("process_cpu_seconds_total", 1.8)):
        assert (value(both, name) or 0) > least * (value(one, name) or 1)
    assert (value(both, "process_cpu_seconds_total") or 0) < 2.5 * (value(one, "process_cpu_seconds_total") or 0)
    for name in ("process_start_time_seconds", "process_max_fds", "solo_log_lines_lost_total"):
        assert value(both, name) == value(one, name)


def test_metrics_in_no_file_are_of_the_answering_worker_and_no_family_appears_twice() -> None:
    metrics = worker(0)
    WorkerMetrics().update(ready=True)
    text = metrics.text()[0].decode()
    heads = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))
    alone = samples(Metrics(lambda: [MODEL]).text()[0].decode())
    assert {name for name, _ in alone} <= {name for name, _ in samples(text)}
    assert any(name == "solo_model_info" for name, _ in samples(text))


def test_a_file_that_is_being_created_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, collect, failures = worker(0), MultiProcessCollector.collect, [struct.error(), struct.error()]
    metrics.answered("tiny", "ok", 1.0)

    def failing(self: Any) -> Any:
        if failures:
            raise failures.pop()
        return collect(self)

    monkeypatch.setattr(MultiProcessCollector, "collect", failing)
    assert value(scraped(metrics), "solo_images_total", model="tiny", outcome="ok") == 1
    failures.extend(struct.error() for _ in range(3))
    with pytest.raises(struct.error):
        metrics.text()


def test_the_metrics_folder_is_removed() -> None:
    with metrics_folder() as name:
        SupervisorMetrics(name, 2)
        assert os.listdir(name)
    assert not Path(name).exists()
