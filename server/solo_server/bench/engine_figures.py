"""Figures of the network alone: milliseconds, images per second, and arithmetic per second relative to the machine's best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from solo_server.bench.figures import Figures
from solo_server.bench.samples import Sample


@dataclass(frozen=True, slots=True)
class Rate:
    """The rate of one part of the network. gflop: for one image; share: of the best matrix-product rate, `None` if not measured.

    share can exceed 1 for kernels that need fewer products than a direct convolution (Winograd, INT8).
    """

    part: str
    ms: float
    gflop: float
    gflop_per_s: float
    share: float | None


def rates_of(figures: Figures, batch: int, gflop: Mapping[str, float], best: float | None) -> list[Rate]:
    """Rates of the total, then of each stage whose arithmetic is known. Times are of a whole batch."""
    times = {"total": figures.median_ms, **figures.stages_ms}
    return [_rate(part, times[part], batch, gflop[part], best) for part in times if gflop.get(part) and times[part] > 0]


def best_matmul_gflop_per_s(samples: Sequence[Sample]) -> float | None:
    """The highest rate over all sizes and rounds; stages of a sample are named after the side of the matrices."""
    rates = [2 * int(side) ** 3 / 1e6 / ms for s in samples for side, ms in s.stages_ms.items() if ms > 0]
    return round(max(rates), 2) if rates else None


def _rate(part: str, ms: float, batch: int, gflop: float, best: float | None) -> Rate:
    per_s = batch * gflop / ms * 1e3
    share = round(per_s / best, 4) if best else None
    return Rate(part, ms, round(gflop, 4), round(per_s, 2), share)
