"""Ray Serve against plain `solo serve`: images/s in rounds in turn, overload, a killed replica, memory over many images.

    .venv-ray/bin/python benchmarks/ray_serve.py [PART ...] [--quick] [-o benchmarks/results/ray_serve.json]

Parts: throughput, overload, kill, soak; without any, all: under eight minutes on two cores. Each server is started for its load and
stopped after it: an idle cluster of Ray would take a share of the cores from the others. `--soak-images 10000` for the long soak.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
from record import write_record
from reliability_parts.figures import growth_percent, overload, ratios, spread
from reliability_parts.loads import load_figures, run_load, served, warm_up
from reliability_parts.run_options import ROOT, RunOptions, log, others_share
from solo_server.bench.load.server_process import Program, ServerProcess
from solo_server.system.cores import cores

CALLERS = 8
PLAIN = Program()
DEFAULT_PROXY, HAPROXY = "ray_default_proxy", "ray_haproxy"
PAIRS = {
    DEFAULT_PROXY: "plain",
    HAPROXY: "plain",
    "ray_two_nodes": "two_workers",
    "ray_two_nodes_haproxy": "two_workers",
}
"""Each contender on Ray, and what it is compared with."""
TIMES_CAPACITY, DEADLINE_MS, SEED = 4.0, 5000, 20261201
RECOVERY_S, NODES = 60.0, 2


def main() -> int:
    """Measure and write."""
    arguments = _parser().parse_args()
    options = RunOptions(arguments.quick, None, Path(sys.executable), profile=False)
    found: dict[str, Any] = {"quick": options.is_quick, "cores": cores(), "others_before": others_share()}
    for name in arguments.parts or PARTS:
        found[name] = PARTS[name](options) if name != "soak" else soak(options, arguments.soak_images)
    if arguments.output is not None:
        write_record(arguments.output, found)
    return 0


def throughput(options: RunOptions) -> dict[str, Any]:
    """Images/s of every contender in each round, and ratios to the plain server of the same round."""
    rounds, seconds = int(options.pick(3, 1)), options.pick(6, 2)
    rates: dict[str, list[float]] = {name: [] for name in _contenders()}
    for number in range(rounds):
        for name, (program, words) in _contenders().items():
            with _served(program, words) as server:
                target = options.target(server.address)
                warm_up(target, server)
                point = run_load("closed", CALLERS, target, server, lambda load: load.closed(CALLERS, seconds, inf))
            figures = point.figures()
            if figures["errors"]:
                raise RuntimeError(f"{name} answered {figures['errors']}")
            rates[name].append(figures["throughput"])
            log(
                f"throughput {number + 1}/{rounds}: {name}: {figures['throughput']} images/s, p99 {figures['p99_ms']} ms"
            )
    return {
        "callers": CALLERS,
        "seconds": seconds,
        "per_s": {name: spread(values, 2) for name, values in rates.items()},
        "ratios": {name: ratios(rates[name], rates[other]) for name, other in PAIRS.items()},
    }


def overloaded(options: RunOptions) -> dict[str, Any]:
    """Four times as many requests as the capacity, at random times: goodput, and how soon the others are refused."""
    seconds, found = options.pick(10, 3), {}
    for name in ("plain", DEFAULT_PROXY, HAPROXY):
        program, words = _contenders()[name]
        with _served(program, words) as server:
            target = options.target(server.address)
            hurried = options.target(server.address, {"X-Request-Timeout-Ms": str(DEADLINE_MS)})
            warm_up(target, server)
            capacity = _capacity(options, server)
            rate = TIMES_CAPACITY * capacity
            point = run_load("open", rate, hurried, server, lambda load, r=rate: load.open(r, seconds, SEED))  # type: ignore[misc]
        found[name] = {"capacity": capacity, "rate": round(rate, 2), **overload(point.shots, DEADLINE_MS)}
        found[name]["goodput_share"] = round(point.figures()["throughput"] / capacity, 4)
        log(f"overload: {name}: {found[name]}")
    return found


def killed(options: RunOptions) -> dict[str, Any]:
    """Of two replicas one is killed under load: what callers got, and when both were there again."""
    seconds = options.pick(30, 12)
    program, _ = _contenders()["ray_two_nodes"]
    with tempfile.TemporaryDirectory() as folder, _served(program, ("--states", f"{folder}/states")) as server:
        target = options.target(server.address)
        warm_up(target, server)
        recovered_s: list[float] = []
        killer = threading.Thread(target=_kill_one, args=(server, Path(folder, "states"), recovered_s))
        killer.start()
        point = run_load("closed", CALLERS, target, server, lambda load: load.closed(CALLERS, seconds, inf))
        killer.join()
    figures = load_figures(point)
    answered = sum(shot.status in (200, 503) for shot in point.shots)
    found = {
        "requests": len(point.shots),
        "answered_or_503": round(answered / len(point.shots), 5),
        "replaced_after_s": round(recovered_s[0], 2) if recovered_s else None,
        "errors": figures["errors"],
        "p99_ms": figures["p99_ms"],
    }
    log(f"kill: {found}")
    return found


def soak(options: RunOptions, images: int) -> dict[str, Any]:
    """Resident memory of the whole cluster while it answers many images."""
    program, words = _contenders()[DEFAULT_PROXY]
    count, steps = (images if not options.is_quick else 100), 10
    memory: list[float] = []
    with _served(program, words) as server:
        target = options.target(server.address)
        warm_up(target, server)
        for _ in range(steps):
            point = run_load("closed", CALLERS, target, server, lambda load: load.closed(CALLERS, inf, count / steps))
            if errors := point.figures()["errors"]:
                raise RuntimeError(f"soak: {errors}")
            memory.append(_replica_mib(server))
    found = {"images": count, "replica_mib": memory, "growth_percent": growth_percent(memory, len(memory) // 3)}
    log(f"soak: {found}")
    return found


PARTS = {"throughput": throughput, "overload": overloaded, "kill": killed, "soak": soak}


def _contenders() -> dict[str, tuple[Program, tuple[str, ...]]]:
    """Programs and their arguments, all of the demo model with all cores."""
    own = (sys.executable, "-m", "solo_models.cli", "serve")
    ray = Program("solo serve --ray", (*own, "--ray"), "/readyz", _environment())
    haproxy = Program("solo serve --ray, HAProxy", (*own, "--ray"), "/readyz", _environment() | _haproxy())
    nodes = (sys.executable, str(ROOT / "benchmarks" / "ray_nodes.py"))
    all_cores, one_core = ("--threads", str(cores())), ("--threads", "1")
    return {
        "plain": (PLAIN, all_cores),
        DEFAULT_PROXY: (ray, all_cores),
        HAPROXY: (haproxy, all_cores),
        "two_workers": (PLAIN, ("--workers", "2", *one_core)),
        "ray_two_nodes": (Program("two nodes", nodes, "/readyz", _environment()), ()),
        "ray_two_nodes_haproxy": (Program("two nodes, HAProxy", nodes, "/readyz", _environment() | _haproxy()), ()),
    }


def _environment() -> dict[str, str]:
    return dict(os.environ) | {"RAY_USAGE_STATS_ENABLED": "0"}


def _haproxy() -> dict[str, str]:
    """HAProxy's ports are free ones: those of Ray's defaults may be in use."""
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    metrics, stats = (str(one.getsockname()[1]) for one in ports)
    for one in ports:
        one.close()
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


@contextmanager
def _served(program: Program, words: tuple[str, ...]) -> Iterator[ServerProcess]:
    with served(*words, program=program) as server:
        yield server


def _capacity(options: RunOptions, server: ServerProcess) -> float:
    target, seconds = options.target(server.address), options.pick(5, 2)
    point = run_load("closed", CALLERS, target, server, lambda load: load.closed(CALLERS, seconds, inf))
    return float(point.figures()["throughput"])


def _replicas(server: ServerProcess) -> list[psutil.Process]:
    found = []
    for pid in server.family():
        try:
            process = psutil.Process(pid)
            if " ".join(process.cmdline()).startswith("ray::ServeReplica"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _replica_mib(server: ServerProcess) -> float:
    return round(sum(process.memory_info().rss for process in _replicas(server)) / 2**20, 1)


def _kill_one(server: ServerProcess, states: Path, recovered_s: list[float]) -> None:
    """Kill a replica after two seconds; note after how long Ray has as many running as before."""
    sleep(2)
    start = monotonic()
    _replicas(server)[0].send_signal(signal.SIGKILL)
    while monotonic() - start < RECOVERY_S:
        seen = [line.split() for line in states.read_text().splitlines()]
        after = [(float(at), int(running)) for at, running in seen if float(at) > start]
        lost = next((at for at, running in after if running < NODES), None)
        back = next((at for at, running in after if lost is not None and at > lost and running == NODES), None)
        if back is not None:
            recovered_s.append(back - start)
            return
        sleep(0.2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART")
    parser.add_argument(
        "--quick", action="store_true", help="one short round: a check of this program, not a measurement"
    )
    parser.add_argument("--soak-images", type=int, default=2000, metavar="N")
    parser.add_argument("-o", "--output", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
