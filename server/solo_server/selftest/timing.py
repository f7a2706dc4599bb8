"""Times of batches in trtexec's terms: H2D latency, GPU compute time, D2H latency, their sum, and throughput.

Milliseconds between CUDA events on the slot's stream. Each stage lasts until the next begins, gaps between launches included. Work
of the host while the stream waits for it is in `host_walltime` only.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PERCENTILES = (90, 95, 99)


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """One batch. h2d_ms, d2h_ms: copies; network_ms, postprocess_ms: GPU compute; stages_ms: by stage; wall_ms: on the host."""

    h2d_ms: float
    network_ms: float
    postprocess_ms: float
    d2h_ms: float
    stages_ms: dict[str, float]
    wall_ms: float

    @property
    def latency_ms(self) -> float:
        """As trtexec defines it: both copies and the compute time."""
        return self.h2d_ms + self.compute_ms + self.d2h_ms

    @property
    def compute_ms(self) -> float:
        """Network and post-processing."""
        return self.network_ms + self.postprocess_ms


def summary(times: Sequence[BatchTimes], images: int) -> dict[str, Any]:
    """Statistics of at least one batch of `images` images."""
    wall_s = sum(t.wall_ms for t in times) / 1e3
    names = sorted({name for t in times for name in t.stages_ms})
    return {
        "images": images,
        "batches": len(times),
        "h2d_latency_ms": statistics_of([t.h2d_ms for t in times]),
        "gpu_compute_time_ms": statistics_of([t.compute_ms for t in times]),
        "network_ms": statistics_of([t.network_ms for t in times]),
        "postprocess_ms": statistics_of([t.postprocess_ms for t in times]),
        "d2h_latency_ms": statistics_of([t.d2h_ms for t in times]),
        "latency_ms": statistics_of([t.latency_ms for t in times]),
        "host_walltime_ms": statistics_of([t.wall_ms for t in times]),
        "throughput_qps": round(len(times) / wall_s, 3),
        "images_per_second": round(len(times) * images / wall_s, 3),
        "stages_ms": {name: statistics_of([t.stages_ms.get(name, 0.0) for t in times]) for name in names},
    }


def statistics_of(values: Sequence[float]) -> dict[str, float]:
    """min, max, mean, median and percentiles (the next measured value above), of at least one value."""
    ordered = sorted(values)
    found = {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": statistics.fmean(ordered),
        "median": statistics.median(ordered),
    } | {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in PERCENTILES}
    return {name: round(value, 4) for name, value in found.items()}
