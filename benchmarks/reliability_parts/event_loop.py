"""How long the event loop of a loaded server is blocked, measured by a task in it."""

from __future__ import annotations

import sys
import tempfile
from array import array
from pathlib import Path
from time import monotonic
from typing import Any

from solo_server.bench.load.server_process import Program

from reliability_parts import probed_server
from reliability_parts.figures import tails
from reliability_parts.loads import load_figures, run_load, served, warm_up
from reliability_parts.run_options import RunOptions, log

CALLERS = 8
IDLE_S = 5.0


def event_loop(options: RunOptions) -> dict[str, Any]:
    """Wake-ups from sleeps of 1 ms in an idle server and with eight callers: lateness by wall clock and by processor time."""
    seconds = options.pick(60, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wake-ups"
        program = Program("the probed server", (sys.executable, probed_server.__file__, str(path)))
        with served(program=program) as server:
            target = options.target(server.address)
            warm_up(target, server)
            server.exit_status(options.pick(IDLE_S, 1))  # idle meanwhile
            begun = monotonic()
            point = run_load("closed", CALLERS, target, server, lambda load: load.closed(CALLERS, seconds))
            ended = monotonic()
        wakes = array("d", path.read_bytes())
    loaded = _between(wakes, begun, ended)
    idle = _between(wakes, begun - options.pick(IDLE_S, 1), begun)
    log(f"event_loop: {loaded}")
    return {"callers": CALLERS, "seconds": seconds, "loaded": loaded, "idle": idle, "load": load_figures(point)}


def _between(wakes: array[float], begun: float, ended: float) -> dict[str, Any]:
    rows = [
        (late, busy) for at, late, busy in zip(wakes[::3], wakes[1::3], wakes[2::3], strict=True) if begun <= at < ended
    ]
    return {
        "wake_ups": len(rows),
        "late_ms": tails([late for late, _ in rows], 50, 99, 99.9),
        "busy_ms": tails([busy for _, busy in rows], 50, 99, 99.9),
    }
