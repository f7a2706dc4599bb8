"""The arithmetic behind the figures, without any measurement."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from solo_server.bench.figures import percentile
from solo_server.bench.load.loops import Shot

OK, REFUSED = 200, 503


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, lowest and highest."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Ours over theirs in each round, where both ran side by side; the spread over the rounds."""
    return spread([mine / other for mine, other in zip(ours, theirs, strict=True)])


def growth_percent(rss_mib: Sequence[float], settled: int) -> float:
    """How far the highest value after index `settled` lies above the one there, in percent; 0 if none does."""
    if not 0 <= settled < len(rss_mib):
        raise ValueError(f"there is no value {settled} among {len(rss_mib)}")
    return round(max(0.0, max(rss_mib[settled:]) / rss_mib[settled] - 1) * 100, 2)


def tails(values: Sequence[float], *percents: float, digits: int = 3) -> dict[str, float | None]:
    """Percentiles and the maximum; `None` without values."""
    found = {f"p{p:g}": round(percentile(values, p), digits) if values else None for p in percents}
    return {**found, "max": round(max(values), digits) if values else None}


def overload(shots: Sequence[Shot], deadline_ms: float) -> dict[str, Any]:
    """Figures of a server above its capacity. Times count from when a request was sent.

    accepted: requests without a 503; in_time: 200 responses within the deadline; others: neither 200 nor 503.
    """
    since_sent = [(shot.status, shot.latency_ms - shot.late_ms) for shot in shots]
    good = [ms for status, ms in since_sent if status == OK]
    refused = [ms for status, ms in since_sent if status == REFUSED]
    accepted = len(shots) - len(refused)
    in_time = sum(ms <= deadline_ms for ms in good)
    return {
        "requests": len(shots),
        "accepted": accepted,
        "in_time": in_time,
        "in_time_share": round(in_time / accepted, 5) if accepted else None,
        "answers": dict(sorted(Counter(f"{shot.status} {shot.code}".strip() for shot in shots).items())),
        "server_errors": sum(shot.status == 500 for shot in shots),
        "others": sum(shot.status not in (OK, REFUSED) for shot in shots),
        "good_ms": tails(good, 50, 99),
        "refused_ms": tails(refused, 50, 99),
        "late_ms": tails([shot.late_ms for shot in shots], 50, 99),
    }
