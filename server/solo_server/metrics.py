"""Counters, histograms and gauges in Prometheus's format, behind `GET /metrics`.

Every application has a registry of its own. Labels hold only what the server or its operator chose: routes, codes, reasons, stages,
the model. Nothing that a caller sends becomes a label, so that there are never more series than code. Docs: docs/operations.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from solo_server.logs import Access, lost_lines
from solo_server.worker_metrics import SUM, of_all_workers

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
M = TypeVar("M", Counter, Histogram)
PICTURES = (1, 2, 4, 8, 16, 32, 64)

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each of ours, which no query needs: process_start_time_seconds is there


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What `solo_model_info` tells. ready: its requests are taken."""

    name: str
    version: str
    precision: str
    engine: str
    ready: bool


class Metrics:
    """All metrics of one application. An `Observer`; whole requests are told by `begun` and `ended`."""

    def __init__(self, models: Callable[[], Sequence[ServedModel]], *, among_workers: bool = False) -> None:
        """among_workers: `text` tells of all workers of this server; see `solo_server.worker_metrics`."""
        self.registry, self._among_workers = CollectorRegistry(), among_workers
        ProcessCollector(registry=self.registry)
        self.registry.register(_AtScrape(models))
        self._add_requests()
        self._add_pictures()

    def begun(self) -> None:
        """A request's head has come."""
        self._in_progress.inc()

    def ended(self, access: Access) -> None:
        """A request was answered, or its caller went away."""
        self._in_progress.dec()
        self._requests(access.route, outcome(access.status), access.code).inc()
        self._request_seconds(access.route).observe(access.ms / 1e3)
        self._received.inc(access.bytes_in)
        self._sent.inc(access.bytes_out)
        self._instances.inc(access.instances)
        if access.pictures:
            self._request_pictures.observe(access.pictures)

    def refused(self, code: str, reason: str) -> None:
        """See `Observer`."""
        self._refused(code, reason).inc()

    def waiting(self, pictures: int, pixels: int) -> None:
        """See `Observer`."""
        self._waiting_pictures.set(pictures)
        self._waiting_pixels.set(pixels)

    def batched(self, model: str, pictures: int, infer_ms: float) -> None:
        """See `Observer`."""
        self._batch_pictures(model).observe(pictures)
        self._batch_seconds(model).observe(infer_ms / 1e3)

    def stage(self, model: str, name: str, ms: float) -> None:
        """See `Observer`."""
        self._stage_seconds(model, name).observe(ms / 1e3)

    def answered(self, model: str, outcome: str, total_ms: float) -> None:
        """See `Observer`."""
        self._pictures(model, outcome).inc()
        self._picture_seconds(model).observe(total_ms / 1e3)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its media type: Prometheus's text, or OpenMetrics where `accept` asks for it."""
        encode, media_type = choose_encoder(accept)
        return encode(of_all_workers(self.registry) if self._among_workers else self.registry), media_type

    def _add_requests(self) -> None:
        to = self.registry
        self._requests = _Of(
            Counter("solo_requests", "Requests by route, outcome and code.", ["route", "outcome", "code"], registry=to)
        )
        self._request_seconds = _Of(
            Histogram(
                "solo_request_duration_seconds",
                "From a request's head to the last byte of its answer, receiving the body included.",
                ["route"],
                buckets=SECONDS,
                registry=to,
            )
        )
        self._in_progress = Gauge(
            "solo_requests_in_progress", "Requests begun and not yet answered.", registry=to, multiprocess_mode=SUM
        )
        self._received = Counter("solo_received_bytes", "Bytes of request bodies.", registry=to)
        self._sent = Counter("solo_sent_bytes", "Bytes of response bodies.", registry=to)
        self._request_pictures = Histogram(
            "solo_request_pictures", "Accepted pictures of a request that had any.", buckets=PICTURES, registry=to
        )
        self._refused = _Of(
            Counter(
                "solo_refused",
                "Requests and pictures refused before any work, by reason.",
                ["code", "reason"],
                registry=to,
            )
        )

    def _add_pictures(self) -> None:
        to = self.registry
        self._pictures = _Of(
            Counter("solo_pictures", "Accepted pictures by how they ended.", ["model", "outcome"], registry=to)
        )
        self._picture_seconds = _Of(
            Histogram(
                "solo_picture_duration_seconds",
                "From a picture's acceptance to its end.",
                ["model"],
                buckets=SECONDS,
                registry=to,
            )
        )
        self._stage_seconds = _Of(
            Histogram(
                "solo_stage_duration_seconds", "Stages of a picture.", ["model", "stage"], buckets=SECONDS, registry=to
            )
        )
        self._instances = Counter("solo_instances", "Instances found.", registry=to)
        self._batch_pictures = _Of(
            Histogram("solo_batch_pictures", "Pictures of a batch.", ["model"], buckets=PICTURES, registry=to)
        )
        self._batch_seconds = _Of(
            Histogram("solo_batch_duration_seconds", "A batch in the engine.", ["model"], buckets=SECONDS, registry=to)
        )
        self._waiting_pictures = Gauge(
            "solo_waiting_pictures", "Pictures accepted and not yet answered.", registry=to, multiprocess_mode=SUM
        )
        self._waiting_pixels = Gauge(
            "solo_waiting_pixels", "Pixels of the waiting pictures.", registry=to, multiprocess_mode=SUM
        )


class _Of(Generic[M]):
    """A metric's children by their labels, each made once: `labels` takes a lock and makes texts every time."""

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._known: dict[tuple[str, ...], M] = {}

    def __call__(self, *labels: str) -> M:
        child = self._known.get(labels)
        if child is None:
            child = self._known[labels] = self._metric.labels(*labels)
        return child


class _AtScrape(Collector):
    """What is looked up when somebody asks."""

    def __init__(self, models: Callable[[], Sequence[ServedModel]]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Families with the values of now."""
        models = self._models()
        yield GaugeMetricFamily(
            "solo_ready",
            "1 when every model is warm and requests are taken.",
            value=float(bool(models) and all(m.ready for m in models)),
        )
        told = InfoMetricFamily("solo_model", "The models served.", labels=["name", "version", "precision", "engine"])
        for model in models:
            told.add_metric([model.name, model.version, model.precision, model.engine], {})
        yield told
        yield CounterMetricFamily(
            "solo_log_lines_lost", "Lines of the log that could not be written, of this process.", value=lost_lines()
        )


def outcome(status: int) -> str:
    """A status in one word: who would have to act on it."""
    if status < 400:
        return "ok"
    if status == 499:
        return "gone"
    if status < 500:
        return "client_error"
    return "unavailable" if status in (503, 504) else "server_error"
