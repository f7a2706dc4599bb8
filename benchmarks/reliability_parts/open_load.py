"""Open loops: a trickle, whose slowest requests should be nearly as fast as the median; and four times the server's capacity."""

from __future__ import annotations

from typing import Any

from solo_server.bench.load.points import Point
from solo_server.bench.load.server_process import ServerProcess

from reliability_parts.figures import overload as figures_of_overload
from reliability_parts.figures import tails
from reliability_parts.loads import load_figures, run_load, served, warm_up
from reliability_parts.run_options import RunOptions, log

TRICKLE_RATE = 5.0
TIMES_CAPACITY = 4.0
DEADLINE_MS = 5000
SEED = 20261126


def trickle(options: RunOptions) -> dict[str, Any]:
    """Five requests per second, evenly spaced."""
    with served() as server:
        target = options.target(server.address)
        warm_up(target, server)
        seconds = options.pick(120, 4)
        point = run_load("open", TRICKLE_RATE, target, server, lambda load: load.open(TRICKLE_RATE, seconds))
    figures = load_figures(point)
    ratio = figures["p99_ms"] / figures["p50_ms"] if figures["p50_ms"] else None
    log(f"trickle: p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms")
    late = tails([shot.late_ms for shot in point.shots], 50, 99)
    return {"rate": TRICKLE_RATE, "seconds": seconds, **figures, "ratio": ratio and round(ratio, 4), "late_ms": late}


def overload(options: RunOptions) -> dict[str, Any]:
    """Capacity before and after, and between them four times as many requests, at random times, each with a deadline."""
    seconds = options.pick(120, 5)
    with served() as server:
        plain = options.target(server.address)
        hurried = options.target(server.address, {"X-Request-Timeout-Ms": str(DEADLINE_MS)})
        warm_up(plain, server)
        before = _capacity(options, server)
        rate = TIMES_CAPACITY * before
        log(f"overload: capacity {before} images/s; {rate:.0f} requests/s for {seconds:g} s")
        point = run_load("open", rate, hurried, server, lambda load: load.open(rate, seconds, SEED))
        after = _capacity(options, server)
    found = figures_of_overload(point.shots, DEADLINE_MS)
    capacity = (before + after) / 2
    log(f"overload: {found['answers']}")
    goodput = point.figures()["throughput"]
    return {
        "deadline_ms": DEADLINE_MS,
        "seconds": seconds,
        "rate": round(rate, 2),
        "capacity": {"before": before, "after": after},
        "goodput": goodput,
        "goodput_share": round(goodput / capacity, 4),
        **found,
        "generator_cpu_s": point.client_cpu_s,
        "server_cpu_s": point.cpu_s,
        "foreign_share": point.figures()["foreign_share"],
        "rss_mib": point.rss_mib,
        "latencies": _thinned(point),
    }


def _capacity(options: RunOptions, server: ServerProcess) -> float:
    """200 responses per second with eight callers."""
    target, seconds = options.target(server.address), options.pick(30, 3)
    point = run_load("closed", 8, target, server, lambda load: load.closed(8, seconds))
    return float(point.figures()["throughput"])


def _thinned(point: Point) -> list[list[float]]:
    """About 600 requests as `[due_s, milliseconds since sent, status]`, for a plot."""
    shots = sorted(point.shots, key=lambda shot: shot.due_s)
    step = max(1, len(shots) // 600)
    return [[s.due_s, round(s.latency_ms - s.late_ms, 1), s.status] for s in shots[::step]]
