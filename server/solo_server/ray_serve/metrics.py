"""Our metrics in Ray's endpoint, which Prometheus scrapes once a node: `ray_solo_requests_total` and so on, with Ray's labels.

Names, labels and values are those of `/metrics`, after `ray_`; Ray adds the replica. All are gauges to Ray, which has no histograms
that others have filled: `rate` and `histogram_quantile` read them as before. Nothing that a client sends becomes a label.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client.samples import Sample
from ray.serve.metrics import Gauge  # pyright: ignore[reportMissingImports]  # the extra `ray`

from solo_server.observability.metrics import Metrics

PREFIX = "solo_"
"""Ray has metrics of the process itself."""


class RayMetrics:
    """Passes the metrics of one replica on."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._gauges: dict[str, Any] = {}

    async def report(self) -> None:
        """Pass on all values as they are now. Called on the event loop."""
        self._metrics.fold()
        await asyncio.to_thread(self._pass_on)

    def _pass_on(self) -> None:
        for family in self._metrics.registry.collect():
            if family.name.startswith(PREFIX):
                for sample in family.samples:
                    self._gauge(sample, family.documentation).set(sample.value, dict(sample.labels))

    def _gauge(self, sample: Sample, text: str) -> Any:
        if sample.name not in self._gauges:
            self._gauges[sample.name] = Gauge(sample.name, text, tag_keys=tuple(sample.labels))
        return self._gauges[sample.name]
