"""Our metrics in Ray's endpoint, which Prometheus scrapes once a node: `ray_solo_requests_total` and so on, with Ray's labels.

Ray adds the replica's name to each series. Label values are ours, as at `/metrics`: nothing that a client sends becomes one.
A histogram of Prometheus arrives as three counters, `..._bucket` with `le` included: `histogram_quantile` reads them as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from ray.util import metrics as ray_metrics  # pyright: ignore[reportMissingImports]  # the extra `ray`

from solo_server.observability.metrics import Metrics

PREFIX = "solo_"
"""Ray has metrics of the process itself."""


class RayMetrics:
    """Passes the metrics of one replica on. Counters are passed on as differences."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._known: dict[str, Any] = {}
        self._passed_on: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    async def report(self) -> None:
        """Pass on what has changed. Called on the event loop."""
        self._metrics.fold()
        await asyncio.to_thread(self._pass_on)

    def _pass_on(self) -> None:
        families: Iterable[Metric] = self._metrics.registry.collect()
        for family in families:
            if family.name.startswith(PREFIX):
                for sample in family.samples:
                    self._pass_one_on(family, sample)

    def _pass_one_on(self, family: Metric, sample: Sample) -> None:
        labels = dict(sample.labels)
        if family.type in ("counter", "histogram"):
            key = sample.name, tuple(sorted(labels.items()))
            added = sample.value - self._passed_on.get(key, 0.0)
            if added > 0:
                self._metric(ray_metrics.Counter, family, sample).inc(added, labels)
                self._passed_on[key] = sample.value
        else:
            self._metric(ray_metrics.Gauge, family, sample).set(sample.value, labels)

    def _metric(self, kind: Any, family: Metric, sample: Sample) -> Any:
        name = sample.name.removesuffix("_total")  # Ray appends it to counters
        if name not in self._known:
            self._known[name] = kind(name, description=family.documentation, tag_keys=tuple(sample.labels))
        return self._known[name]
