"""Runs loads one after the other; figures of each, and its cost for the server."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from time import process_time
from typing import Any, Literal

from solo_server.bench import machine
from solo_server.bench.errors import BenchError, EndedEarly
from solo_server.bench.figures import percentile
from solo_server.bench.load.connection import Target
from solo_server.bench.load.loops import Load, Shot
from solo_server.bench.load.server_process import ServerProcess
from solo_server.bench.measure import INTERRUPTED
from solo_server.bench.progress import Progress
from solo_server.system.cores import cores

WARM_UPS = 2  # per image
SHOWN_EVERY = 0.1
REFUSED = 503


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Closed loops with these numbers of callers, then open loops with these rates per second, `seconds` each.

    poisson_seed: for open loops with random arrival times; `None`: evenly spaced.
    """

    concurrency: tuple[int, ...]
    rates: tuple[float, ...]
    seconds: float
    timeout_s: float
    poisson_seed: int | None = None


@dataclass(slots=True)
class Point:
    """One load. level: callers of a closed loop, requests per second of an open one.

    cpu_s, rss_mib: of the server, if it was started here; client_cpu_s: of the load generator; foreign_cpu_s: of other processes.
    """

    loop: Literal["closed", "open"]
    level: float
    shots: list[Shot] = field(default_factory=list)
    cpu_s: float | None = None
    rss_mib: float | None = None
    client_cpu_s: float = 0.0
    foreign_cpu_s: float | None = None

    def elapsed_s(self) -> float:
        """From the start to the last response."""
        return max((shot.due_s + shot.latency_ms / 1e3 for shot in self.shots), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: figures, then every shot as `[due_s, latency_ms, code, status, late_ms]`."""
        rest = {k: v for k, v in asdict(self).items() if k != "shots"}
        shots = [[shot.due_s, shot.latency_ms, shot.code, shot.status, shot.late_ms] for shot in self.shots]
        return {**rest, **self.figures(), "shots": shots}

    def figures(self) -> dict[str, Any]:
        """Throughput in 200 responses per second, their latencies in milliseconds, errors by code, responses by status.

        refused_p99_ms: of 503 responses, from when the request was sent; late_p99_ms: how late the generator was.
        """
        good = [shot.latency_ms for shot in self.shots if not shot.code]
        refused = [shot.latency_ms - shot.late_ms for shot in self.shots if shot.status == REFUSED]
        elapsed_s = self.elapsed_s()
        return {
            "elapsed_s": round(elapsed_s, 3),
            "requests": len(self.shots),
            "throughput": round(len(good) / elapsed_s, 3) if elapsed_s else 0.0,
            **{f"p{p}_ms": _percentile(good, p) for p in (50, 90, 95, 99)},
            "p99.9_ms": _percentile(good, 99.9),
            "foreign_share": self._foreign_share(elapsed_s),
            "max_ms": max(good, default=None),
            "errors": dict(Counter(shot.code for shot in self.shots if shot.code)),
            "statuses": dict(sorted(Counter(str(shot.status) for shot in self.shots).items())),
            "refused_p99_ms": _percentile(refused, 99),
            "late_p99_ms": _percentile([shot.late_ms for shot in self.shots], 99),
        }

    def _foreign_share(self, elapsed_s: float) -> float | None:
        if self.foreign_cpu_s is None or elapsed_s == 0:
            return None
        return round(max(0.0, self.foreign_cpu_s / (elapsed_s * cores())), 4)


@dataclass(slots=True)
class ServerMeasurement:
    """All loads. ended_early: why some are missing, or None."""

    points: list[Point] = field(default_factory=list)
    peak_rss_mib: float | None = None
    ended_early: str | None = None
    load_before: list[float] = field(default_factory=machine.load_average)
    load_after: list[float] = field(default_factory=list)


def measure_server(target: Target, plan: LoadPlan, server: ServerProcess | None) -> ServerMeasurement:
    """Run the plan against a server. If the server dies, or on Ctrl-C, the run ends and the results so far are kept.

    Raises:
        BenchError: the server rejects an image.
    """
    result = ServerMeasurement()
    loads = [("closed", float(n)) for n in plan.concurrency] + [("open", rate) for rate in plan.rates]
    result.points = [Point("open" if loop == "open" else "closed", level) for loop, level in loads]
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(target, plan, server, result.points))
    except EndedEarly as problem:
        result.ended_early = (server.exit_report(1.0) if server else None) or str(problem)
    except KeyboardInterrupt:
        result.ended_early = INTERRUPTED
    result.points = [point for point in result.points if point.shots]
    result.peak_rss_mib = server.rss_mib("VmHWM") if server else None
    result.load_after = machine.load_average()
    return result


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return round(percentile(values, percent), 3) if values else None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop if installed, since the generator shares the machine with the server."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _run(target: Target, plan: LoadPlan, server: ServerProcess | None, points: Sequence[Point]) -> None:
    await _warm_up(target, plan.timeout_s)
    with Progress(len(points) * plan.seconds, sys.stderr) as progress:
        for number, point in enumerate(points):
            await _run_load(point, target, plan, server, _LoadProgress(progress, number * plan.seconds, point))


async def _warm_up(target: Target, timeout_s: float) -> None:
    """Send every image a few times, one at a time, since the first requests are slow."""
    load = Load(target, timeout_s)
    try:
        await load.in_sequence(WARM_UPS * len(target.requests))
    finally:
        load.close()
    for number, shot in enumerate(load.shots):
        if shot.code:
            raise BenchError(f"{target.names[number % len(target.names)]}: the server returned {shot.code}")


class _LoadProgress:
    """Shows the progress of a load, at most ten times per second."""

    def __init__(self, progress: Progress, before_s: float, point: Point) -> None:
        self._progress, self._before_s, self._shown_s = progress, before_s, -1.0
        self._what = f"{point.loop} {point.level:g}"

    def __call__(self, shot: Shot) -> None:
        if shot.due_s - self._shown_s >= SHOWN_EVERY:
            self._shown_s = shot.due_s
            self._progress.show(self._before_s + shot.due_s, self._what)


async def _run_load(
    point: Point, target: Target, plan: LoadPlan, server: ServerProcess | None, on_shot: _LoadProgress
) -> None:
    load = Load(target, plan.timeout_s, on_shot)
    point.shots = load.shots
    busy, own, served = machine.busy_s(), process_time(), server.cpu_s() if server else None
    try:
        if point.loop == "closed":
            await load.closed(int(point.level), plan.seconds)
        else:
            await load.open(point.level, plan.seconds, plan.poisson_seed)
    finally:
        load.close()
        point.client_cpu_s = round(process_time() - own, 3)
        now, after = server.cpu_s() if server else None, machine.busy_s()
        if server is not None and now is not None and served is not None:
            point.cpu_s, point.rss_mib = round(now - served, 2), server.rss_mib("VmRSS")
            if busy is not None and after is not None:
                point.foreign_cpu_s = round(after - busy - point.cpu_s - point.client_cpu_s, 2)
