"""Processor time of a request without the image's work: `solo serve` with a pipeline that computes nothing, over all its threads.

It includes receiving the body, admission, the engine's thread, JSON, metrics, the log line and sending. In the same rounds the same
service is called in process (`stub_service.py`), and uvicorn alone receives such a body and sends such a response
(`bare_server.py`). What HTTP adds is the first minus the second. The part `closed` has another estimate (over HTTP minus in
process, with real images), which is as uncertain as the time of an image.
"""

from __future__ import annotations

import json
import pstats
import sys
import tempfile
from collections import Counter
from math import inf
from pathlib import Path
from time import sleep
from typing import Any

from solo_server.bench.load.points import Point
from solo_server.bench.load.server_process import Program

from reliability_parts import bare_server, stub_server, stub_service
from reliability_parts.figures import spread
from reliability_parts.loads import Drive, in_child, run_load, served, warm_up
from reliability_parts.run_options import RunOptions, log

STUB = Program("the stub server", (sys.executable, stub_server.__file__))
BARE = Program("the bare server", (sys.executable, bare_server.__file__))
SERVICE_8, BARE_8 = "service_8", "bare_8"
RATE = 15.0  # images/s of the demo model on two cores
IDLE_S = 4.0
SHOWN = 30
BUILT_IN = "~"  # the file name of C functions


def http_cpu(options: RunOptions) -> dict[str, Any]:
    """Milliseconds per request: with eight callers, with one, at the demo model's rate; service and uvicorn alone with eight."""
    count, rounds = int(options.pick(6000, 200)), int(options.pick(5, 1))
    loads: dict[str, tuple[float, Drive]] = {
        "closed_8": (8, lambda load: load.closed(8, inf, count)),
        "closed_1": (1, lambda load: load.closed(1, inf, count)),
        "open_15": (RATE, lambda load: load.open(RATE, options.pick(30, 2))),
    }
    found: dict[str, list[float]] = {name: [] for name in (*loads, SERVICE_8, BARE_8)}
    alone = in_child(stub_service.__file__, options.images(), 8, count)
    with served(program=STUB) as server, served(program=BARE) as bare, alone as service:
        target = options.target(server.address)
        warm_up(target, server)
        service.run_task(0)
        bare_target = options.target(bare.address)
        before_s = server.cpu_s() or 0.0
        sleep(options.pick(IDLE_S, 1))
        idle_s = (server.cpu_s() or 0.0) - before_s
        for number in range(rounds):
            for name, (level, drive) in loads.items():
                found[name].append(_cpu_ms(run_load("closed", level, target, server, drive)))
            found[SERVICE_8].append(round(service.run_task(0).cpu_s * 1e3 / count, 4))
            found[BARE_8].append(_cpu_ms(run_load("closed", 8, bare_target, bare, loads["closed_8"][1])))
            log(f"http_cpu {number + 1}/{rounds}: " + ", ".join(f"{n} {v[-1]} ms" for n, v in found.items()))
    if options.profile:
        _print_profile(options, count)
    idle_ms = idle_s * 1e3 / options.pick(IDLE_S, 1)
    added = [served_ms - own_ms for served_ms, own_ms in zip(found["closed_8"], found[SERVICE_8], strict=True)]
    return {
        "ms_a_request": {name: spread(values) for name, values in found.items()},
        "http_adds_ms": spread(added),
        "idle_ms_a_second": round(idle_ms, 3),
    }


def _cpu_ms(point: Point) -> float:
    return round((point.cpu_s or 0.0) * 1e3 / len(point.shots), 4)


def _print_profile(options: RunOptions, count: int) -> None:
    """Print the event loop's functions by own time, and each thread's processor time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stub.profile"
        watched = Program(STUB.name, (*STUB.command, "--profile", str(path)))
        with served(program=watched) as server:
            target = options.target(server.address)
            warm_up(target, server)
            before = _threads_s(server.pid, path)
            point = run_load("closed", 8, target, server, lambda load: load.closed(8, inf, count))
            after, requests = _threads_s(server.pid, path), len(point.shots)
        print(f"\nprocessor time per request by thread, over {requests}; the event loop's includes cProfile")
        for name, seconds in sorted(after.items(), key=lambda item: -item[1]):
            print(f"{(seconds - before.get(name, 0.0)) * 1e3 / requests:8.3f} ms  {name}")
        statistics = pstats.Stats(str(path), stream=sys.stdout)
        _print_by_file(statistics)
        statistics.strip_dirs().sort_stats("tottime").print_stats(SHOWN)


def _print_by_file(statistics: pstats.Stats) -> None:
    """Print the own time by source file; built-in functions count for their caller."""
    own: Counter[str] = Counter()
    for (file, _, _), (_, _, seconds, _, callers) in statistics.stats.items():  # type: ignore[attr-defined]
        if file != BUILT_IN:
            own[_short(file)] += seconds
        for (caller, _, _), (_, _, of_this, _) in callers.items() if file == BUILT_IN else ():
            own[_short(caller)] += of_this
    total = sum(own.values())
    print("\nevent loop: share of its time by source file")
    for name, seconds in own.most_common(SHOWN):
        print(f"{100 * seconds / total:8.1f} %  {name}")


def _short(file: str) -> str:
    return "/".join(Path(file).parts[-2:])


def _threads_s(pid: int, path: Path) -> dict[str, float]:
    names: dict[str, str] = json.loads(path.with_suffix(".threads").read_text())
    found: dict[str, float] = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        name = names.get(folder.name, "others")
        seconds = int((folder / "schedstat").read_text().split()[0]) / 1e9
        found[name] = found.get(name, 0.0) + seconds
    return found
