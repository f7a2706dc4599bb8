"""Open loops: a trickle, whose slowest requests should be as fast as most; and four times what the server can do."""

from __future__ import annotations

from typing import Any

from solo_server.bench.load.points import Point
from solo_server.bench.load.server_process import ServerProcess

from reliability_parts.figures import overload as figures_of_overload
from reliability_parts.figures import tails
from reliability_parts.loads import served, take, told, warm_up
from reliability_parts.setting import Setting, say

TRICKLE_RATE = 5.0
TIMES_CAPACITY = 4.0
DEADLINE_MS = 5000
SEED = 20261126


def trickle(setting: Setting) -> dict[str, Any]:
    """Five requests a second, evenly spaced."""
    with served() as server:
        target = setting.target(server.address)
        warm_up(target, server)
        seconds = setting.lasting(120, 4)
        point = take("open", TRICKLE_RATE, target, server, lambda load: load.open(TRICKLE_RATE, seconds))
    figures = told(point)
    ratio = figures["p99_ms"] / figures["p50_ms"] if figures["p50_ms"] else None
    say(f"trickle: p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms")
    late = tails([shot.late_ms for shot in point.shots], 50, 99)
    return {"rate": TRICKLE_RATE, "seconds": seconds, **figures, "ratio": ratio and round(ratio, 4), "late_ms": late}


def overload(setting: Setting) -> dict[str, Any]:
    """Capacity before and after, and what becomes of four times as many callers who come at random, with a deadline each."""
    seconds = setting.lasting(120, 5)
    with served() as server:
        plain = setting.target(server.address)
        hurried = setting.target(server.address, {"X-Request-Timeout-Ms": str(DEADLINE_MS)})
        warm_up(plain, server)
        before = _capacity(setting, server)
        rate = TIMES_CAPACITY * before
        say(f"overload: capacity {before} images/s; {rate:.0f} requests/s for {seconds:g} s")
        point = take("open", rate, hurried, server, lambda load: load.open(rate, seconds, SEED))
        after = _capacity(setting, server)
    found = figures_of_overload(point.shots, DEADLINE_MS)
    capacity = (before + after) / 2
    say(f"overload: {found['answers']}")
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


def _capacity(setting: Setting, server: ServerProcess) -> float:
    """Good answers a second for eight callers."""
    target, seconds = setting.target(server.address), setting.lasting(30, 3)
    point = take("closed", 8, target, server, lambda load: load.closed(8, seconds))
    return float(point.figures()["throughput"])


def _thinned(point: Point) -> list[list[float]]:
    """Some 600 requests as `[due_s, milliseconds since sent, status]`, for an image."""
    shots = sorted(point.shots, key=lambda shot: shot.due_s)
    step = max(1, len(shots) // 600)
    return [[s.due_s, round(s.latency_ms - s.late_ms, 1), s.status] for s in shots[::step]]
