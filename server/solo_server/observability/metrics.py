"""Counters, histograms and gauges in Prometheus's format, behind `GET /metrics`.

Events are added up in plain numbers (`CounterBuffer`, `HistogramBuffer`), at a tenth of the cost, until the next scrape:

    event loop ─► Observer's methods, begun, ended ─► fold ─► text, in any thread

Every application has its own registry. Label values come from the server or its operator: routes, codes, reasons, stages, models.
Nothing that a client sends becomes a label, so clients cannot create series. Docs: docs/operations.md.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from solo_server.observability.logs import Access, lost_lines
from solo_server.observability.multiprocess import SUM, merged_registry
from solo_server.observability.observer import NO_STAGES

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)

disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series, and no query needs them: there is process_start_time_seconds


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The labels of `solo_model_info`. ready: the model takes requests."""

    name: str
    version: str
    precision: str
    engine: str
    ready: bool


class Metrics:
    """All metrics of one application. An `Observer`; `begun` and `ended` are called for each request."""

    def __init__(self, models: Callable[[], Sequence[ModelInfo]], *, among_workers: bool = False) -> None:
        """among_workers: `text` has the metrics of all workers; see `solo_server.observability.multiprocess`."""
        self.registry, self._among_workers = CollectorRegistry(), among_workers
        ProcessCollector(registry=self.registry)
        self.registry.register(_ScrapedMetrics(models))
        self._buffers: list[CounterBuffer | HistogramBuffer] = []
        self._add_requests()
        self._add_images()

    def begun(self) -> None:
        """The head of a request has arrived."""
        self._requests_now += 1

    def ended(self, access: Access) -> None:
        """A request was answered, or its client disconnected."""
        self._requests_now -= 1
        self._requests.add(1, access.route, outcome(access.status), access.code)
        self._request_seconds.observe(access.ms / 1e3, access.route)
        self._received.add(access.bytes_in)
        self._sent.add(access.bytes_out)
        if access.images:
            self._request_images.observe(access.images)
        if self._among_workers:
            self.fold()  # another worker may answer the next scrape

    def stream_opened(self) -> None:
        """A request has become a stream."""
        self._requests_now -= 1
        self._streams_now += 1

    def stream_ended(self, access: Access) -> None:
        """A stream has ended. It counts among the requests, but has no duration that compares with theirs."""
        self._streams_now -= 1
        self._requests.add(1, access.route, outcome(access.status), access.code)
        self._received.add(access.bytes_in)
        self._sent.add(access.bytes_out)
        if self._among_workers:
            self.fold()

    def frame(self, outcome: str) -> None:
        """The end of a frame of a stream. outcome: `ok`, `dropped`, `gone`, or the problem's code."""
        self._frames.add(1, outcome)

    def refused(self, code: str, reason: str) -> None:
        """See `Observer`."""
        self._refused.add(1, code, reason)

    def waiting(self, images: int, pixels: int) -> None:
        """See `Observer`."""
        self._waiting_now = images, pixels

    def batched(self, model: str, images: int, infer_ms: float) -> None:
        """See `Observer`."""
        self._batch_images.observe(images, model)
        self._batch_seconds.observe(infer_ms / 1e3, model)

    def answered(
        self, model: str, outcome: str, total_ms: float, instances: int = 0, stages_ms: Mapping[str, float] = NO_STAGES
    ) -> None:
        """See `Observer`."""
        self._images.add(1, model, outcome)
        self._image_seconds.observe(total_ms / 1e3, model)
        self._instances.add(instances)
        for name, ms in stages_ms.items():
            self._stage_seconds.observe(ms / 1e3, model, name)

    def fold(self) -> None:
        """Add what has happened since the last call to the metrics that `text` shows. Called in the event loop's thread."""
        for buffer in self._buffers:
            buffer.fold()
        self._in_progress.set(self._requests_now)
        self._streams.set(self._streams_now)
        self._waiting_images.set(self._waiting_now[0])
        self._waiting_pixels.set(self._waiting_now[1])

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics as of the last `fold`, and their media type: Prometheus's text, or OpenMetrics if `accept` asks for it."""
        encode, media_type = choose_encoder(accept)
        return encode(merged_registry(self.registry) if self._among_workers else self.registry), media_type

    def _add_requests(self) -> None:
        self._requests = self._counter(
            "solo_requests", "Requests by route, outcome and code.", "route", "outcome", "code"
        )
        self._request_seconds = self._histogram(
            "solo_request_duration_seconds",
            "From a request's head to the last byte of its response, receiving the body included.",
            SECONDS,
            "route",
        )
        self._received = self._counter("solo_received_bytes", "Bytes of request bodies.")
        self._sent = self._counter("solo_sent_bytes", "Bytes of response bodies.")
        self._request_images = self._histogram(
            "solo_request_images", "Accepted images per request with images.", IMAGES
        )
        self._refused = self._counter(
            "solo_refused", "Requests and images refused before any work, by reason.", "code", "reason"
        )
        self._in_progress = self._gauge("solo_requests_in_progress", "Requests begun and not yet answered.")
        self._requests_now = 0
        self._streams = self._gauge("solo_streams_open", "Streams that are open.")
        self._frames = self._counter("solo_stream_frames", "Frames of streams by outcome.", "outcome")
        self._streams_now = 0

    def _add_images(self) -> None:
        text = "Accepted images by outcome."
        self._images = self._counter("solo_images", text, "model", "outcome")
        text = "From an image's acceptance to its end."
        self._image_seconds = self._histogram("solo_image_duration_seconds", text, SECONDS, "model")
        text = "Stages of an image."
        self._stage_seconds = self._histogram("solo_stage_duration_seconds", text, SECONDS, "model", "stage")
        self._instances = self._counter("solo_instances", "Instances found.")
        self._batch_images = self._histogram("solo_batch_images", "Images per batch.", IMAGES, "model")
        text = "A batch in the engine; where images run to completion on one thread (CPU): the whole image."
        self._batch_seconds = self._histogram("solo_batch_duration_seconds", text, SECONDS, "model")
        self._waiting_images = self._gauge("solo_waiting_images", "Images accepted and not yet answered.")
        self._waiting_pixels = self._gauge("solo_waiting_pixels", "Pixels of the waiting images, before resizing.")
        self._waiting_now = 0, 0

    def _counter(self, name: str, text: str, *labels: str) -> CounterBuffer:
        buffer = CounterBuffer(Counter(name, text, labels, registry=self.registry))
        self._buffers.append(buffer)
        return buffer

    def _histogram(self, name: str, text: str, bounds: Sequence[float], *labels: str) -> HistogramBuffer:
        buffer = HistogramBuffer(_Histogram(name, text, labels, buckets=bounds, registry=self.registry), bounds)
        self._buffers.append(buffer)
        return buffer

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry, multiprocess_mode=SUM)


class CounterBuffer:
    """Amounts to be added to a counter, by labels."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._amounts: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def add(self, amount: float, *labels: str) -> None:
        """Add to the buffer."""
        self._amounts[labels] += amount

    def fold(self) -> None:
        """Move the amounts to the counter."""
        for labels, amount in self._amounts.items():
            (self._counter.labels(*labels) if labels else self._counter).inc(amount)
        self._amounts.clear()


class HistogramBuffer:
    """Values to be added to a histogram with these upper bounds, by labels: the count of each bucket, and the sum."""

    def __init__(self, histogram: _Histogram, bounds: Sequence[float]) -> None:
        self._histogram, self._bounds = histogram, bounds
        self._bins: defaultdict[tuple[str, ...], list[float]] = defaultdict(lambda: [0] * (len(bounds) + 2))

    def observe(self, value: float, *labels: str) -> None:
        """Add a value to the buffer."""
        bins = self._bins[labels]
        bins[bisect_left(self._bounds, value)] += 1
        bins[-1] += value

    def fold(self) -> None:
        """Move the values to the histogram."""
        for labels, (*counts, total) in self._bins.items():
            (self._histogram.labels(*labels) if labels else self._histogram).add(counts, total)
        self._bins.clear()


class _Histogram(Histogram):
    """A histogram to which many values can be added with one call."""

    def add(self, counts: Sequence[float], total: float) -> None:
        """counts: of each bucket, the one above the last bound included; total: sum of the values."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class _ScrapedMetrics(Collector):
    """Metrics whose values are read at each scrape."""

    def __init__(self, models: Callable[[], Sequence[ModelInfo]]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """The families with their current values."""
        models = self._models()
        yield GaugeMetricFamily(
            "solo_ready",
            "1 when every model is warm and requests are taken.",
            value=float(bool(models) and all(m.ready for m in models)),
        )
        info = InfoMetricFamily("solo_model", "The models served.", labels=["name", "version", "precision", "engine"])
        for model in models:
            info.add_metric([model.name, model.version, model.precision, model.engine], {})
        yield info
        yield CounterMetricFamily(
            "solo_log_lines_lost", "Lines of the log that could not be written, of this process.", value=lost_lines()
        )


def outcome(status: int) -> str:
    """A status in one word, which says who has to act: the client, the operator, the server's developers."""
    if status < 400:
        return "ok"
    if status == 499:
        return "gone"
    if status < 500:
        return "client_error"
    return "unavailable" if status in (503, 504) else "server_error"
