"""Ten thousand images in two hundred sizes, and the server's memory during them."""

from __future__ import annotations

import random
from math import inf
from typing import Any

from solo_server.bench.load.connection import Target, post
from solo_server.bench.load.loops import Shot
from solo_server.bench.load.server_process import Address

from reliability_parts.figures import growth_percent
from reliability_parts.loads import run_load, served
from reliability_parts.mixed_images import SIDES, mixed
from reliability_parts.run_options import RunOptions, log

CALLERS = 4
EVERY = 100
SETTLED = 1000
SEED = 20261126


def soak(options: RunOptions) -> dict[str, Any]:
    """Resident memory after every hundred responses, and its growth after the first thousand."""
    count, sizes = int(options.pick(10_000, 40)), int(options.pick(200, 10))
    every, settled = int(options.pick(EVERY, 5)), int(options.pick(SETTLED, 10))
    rss_mib: list[float] = []
    with served() as server:
        target = _target(server.address, mixed(options.images().values(), sizes, SEED), count)
        answered = 0

        def on_shot(_: Shot) -> None:
            nonlocal answered
            answered += 1
            if answered % every == 0:
                rss_mib.append(server.rss_mib("VmRSS") or 0.0)
                if len(rss_mib) % 10 == 0:
                    log(f"soak: {answered}/{count}, {rss_mib[-1]:.1f} MiB")

        point = run_load("closed", CALLERS, target, server, lambda load: load.closed(CALLERS, inf, count), on_shot)
        peak = server.rss_mib("VmHWM")
    figures = point.figures()
    return {
        "count": count,
        "sizes": sizes,
        "sides": list(SIDES),
        "every": every,
        "settled_after": settled,
        "rss_mib": rss_mib,
        "peak_rss_mib": peak,
        "growth_percent": growth_percent(rss_mib, settled // every - 1),
        "growth_at_end_percent": round((rss_mib[-1] / rss_mib[settled // every - 1] - 1) * 100, 2),
        **{key: figures[key] for key in ("elapsed_s", "throughput", "statuses", "errors", "p50_ms", "p99_ms")},
    }


def _target(address: Address, bodies: list[bytes], count: int) -> Target:
    """All bodies again and again, each time in another order."""
    rng, requests = random.Random(SEED), [post(address.host, address.port, "/segment", body) for body in bodies]  # noqa: S311
    turns: list[bytes] = []
    while len(turns) < count:
        turns += rng.sample(requests, len(requests))
    return Target(address.host, address.port, tuple(turns), tuple(str(number) for number in range(len(turns))))
