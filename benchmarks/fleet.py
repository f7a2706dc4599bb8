"""Simulates a fleet of servers behind a load balancer with Kubernetes' autoscaler: which settings hold p99, and which do not?

    python benchmarks/fleet.py -o benchmarks/results/fleet.json [--seeds 3]

Discrete events: arrivals (Poisson, a day in two hours, with a spike), the measured times of `solo bench pipeline`, bounded
queues that refuse, pods that take time to start, a node that is lost, a node that is slow. `fleet_model.py` is the simulation
and names its assumptions, this file has the scenario and the settings that are compared.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fleet_model import Autoscaler, Events, Fleet, Outcome, simulate
from record import write_record

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "benchmarks/results/bench_demo.json"
CONTENDER = "demo-person int8 openvino"
DAY_S, LOW, HIGH = 7200.0, 20.0, 120.0  # images/s at night and at noon
SPIKE = (2400.0, 2580.0, 2.0)  # from, to (seconds), times the rate
EVENTS = Events(node_lost_s=4200.0, node_slow_s=5400.0, slow_factor=2.0)
P99_LIMIT_MS = 1000.0
LARGEST_REFUSED = 0.01

BASE = Fleet(nodes=8, slots=2, max_waiting=20, start_s=6.0, balancer="least")
SCALER = Autoscaler(lowest=2, highest=24, target=1.0, down_after_s=300.0)
SETTINGS: dict[str, tuple[Fleet, Autoscaler]] = {
    "as the chart: 1 image in a pod": (BASE, SCALER),
    "2 images in a pod": (BASE, replace(SCALER, target=2.0)),
    "4 images in a pod": (BASE, replace(SCALER, target=4.0)),
    "8 images in a pod": (BASE, replace(SCALER, target=8.0)),
    "1, at least 8 pods": (BASE, replace(SCALER, lowest=8)),
    "1, pods leave after 60 s": (BASE, replace(SCALER, down_after_s=60.0)),
    "1, pods start in 60 s": (replace(BASE, start_s=60.0), SCALER),
    "1, random balancing": (replace(BASE, balancer="random"), SCALER),
    "2, queues of 200 images": (replace(BASE, max_waiting=200), replace(SCALER, target=2.0)),
    "no autoscaler, 12 pods": (BASE, replace(SCALER, lowest=12, highest=12)),
}


def rate(at_s: float) -> float:
    """Images/s that arrive: a day with its peak in the middle, and the spike."""
    daily = LOW + (HIGH - LOW) * (1 - math.cos(2 * math.pi * at_s / DAY_S)) / 2
    return daily * (SPIKE[2] if SPIKE[0] <= at_s < SPIKE[1] else 1.0)


def service_times(file: Path = MEASURED, contender: str = CONTENDER) -> tuple[float, ...]:
    """Seconds of an image on one core: measured ones on all cores, times the cores (run to completion; docs/scale.md)."""
    content: dict[str, Any] = json.loads(file.read_bytes())
    (entry,) = [each for each in content["contenders"] if each["name"] == contender]
    return tuple(sample["total_ms"] / 1e3 * content["hardware"]["cores"] for sample in entry["samples"])


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Figures of several seeds: means, and whether every one of them held the limits."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    return {
        "p50_ms": round(mean([one.quantile_ms(0.5) for one in outcomes]), 1),
        "p99_ms": round(mean([one.quantile_ms(0.99) for one in outcomes]), 1),
        "worst_minute_p99_ms": round(max(one.worst_minute_ms for one in outcomes), 1),
        "refused_share": round(mean([one.refused / one.arrived for one in outcomes]), 5),
        "lost": max(one.lost for one in outcomes),
        "pod_hours": round(mean([one.pod_seconds for one in outcomes]) / 3600, 2),
        "most_pods": max(one.most_pods for one in outcomes),
        "holds": all(
            one.quantile_ms(0.99) <= P99_LIMIT_MS and one.refused / one.arrived <= LARGEST_REFUSED for one in outcomes
        ),
    }  # fmt: skip


def main(words: list[str] | None = None) -> int:
    """Simulate all settings and print or write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=DAY_S, help="simulate less than a day, for trying it out")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    arguments = parser.parse_args(words)
    times = service_times()
    found = {}
    for name, (fleet, scaler) in SETTINGS.items():
        outcomes = [
            simulate(fleet, scaler, EVENTS, rate, times, arguments.seconds, seed) for seed in range(arguments.seeds)
        ]
        found[name] = {"fleet": asdict(fleet), "autoscaler": asdict(scaler)} | summary(outcomes)
        figures = {key: value for key, value in found[name].items() if key not in ("fleet", "autoscaler")}
        print(f"{name}: {figures}", file=sys.stderr)
    if arguments.output is not None:
        scenario = {"seconds": arguments.seconds, "low": LOW, "high": HIGH, "spike": SPIKE, "events": asdict(EVENTS),
                    "seeds": arguments.seeds, "p99_limit_ms": P99_LIMIT_MS, "largest_refused": LARGEST_REFUSED,
                    "service": f"{MEASURED.name}: {CONTENDER}"}  # fmt: skip
        write_record(arguments.output, {"scenario": scenario, "settings": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
