"""Closed loop: images/s over HTTP, compared with the pipeline in process, in interleaved rounds.

All contenders run the same images; over HTTP and overlapped with eight in flight. The pipeline's process has the machine to itself;
over HTTP the load generator uses a part of it, which is reported and not subtracted.
"""

from __future__ import annotations

from math import inf
from typing import Any

from reliability_parts import in_process
from reliability_parts.figures import ratios, spread
from reliability_parts.loads import in_child, load_figures, run_load, served, warm_up
from reliability_parts.run_options import RunOptions, log

IN_FLIGHT = 8
CONTENDERS = ("http", *in_process.TASKS)


def closed(options: RunOptions) -> dict[str, Any]:
    """Run the rounds; their figures and a summary."""
    count, rounds = int(options.pick(80, 16)), int(options.pick(15, 2))
    with served() as server, in_child(in_process.__file__, options.images(), IN_FLIGHT, count) as child:
        target = options.target(server.address)
        warm_up(target, server)
        child.run_task(0)
        found = []
        for number in range(rounds):
            point = run_load("closed", IN_FLIGHT, target, server, lambda load: load.closed(IN_FLIGHT, inf, count))
            answers = [child.run_task(task) for task in range(len(in_process.TASKS))]
            found.append(_round(load_figures(point), answers, count))
            log(f"closed {number + 1}/{rounds}: " + ", ".join(f"{n} {found[-1][n]['per_s']}" for n in CONTENDERS))
    return {"in_flight": IN_FLIGHT, "images_a_round": count, "rounds": found, **summary(found)}


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios of images/s, and the processor time per image that HTTP adds."""
    rates = {name: [one[name]["per_s"] for one in rounds] for name in CONTENDERS}
    costs = {name: [one[name]["cpu_ms"] for one in rounds] for name in CONTENDERS}
    added = [http - own for http, own in zip(costs["http"], costs["run_to_completion"], strict=True)]
    return {
        "per_s": {name: spread(values, 2) for name, values in rates.items()},
        "cpu_ms": {name: spread(values, 2) for name, values in costs.items()},
        "ratios": {name: ratios(rates["http"], rates[name]) for name in in_process.TASKS},
        "http_adds_cpu_ms": spread(added, 2),
        "generator_cpu_ms": spread([one["http"]["generator_cpu_ms"] for one in rounds], 2),
        "foreign_share": max((one["http"]["foreign_share"] or 0.0 for one in rounds), default=None),
    }


def _round(point: dict[str, Any], answers: list[Any], count: int) -> dict[str, Any]:
    if point["errors"]:
        raise RuntimeError(f"closed: the server answered {point['errors']}")
    http = {
        "per_s": point["throughput"],
        "cpu_ms": round(point["cpu_s"] * 1e3 / count, 3),
        "generator_cpu_ms": round(point["client_cpu_s"] * 1e3 / count, 3),
        **{key: point[key] for key in ("p50_ms", "p99_ms", "foreign_share")},
    }
    others = [{"per_s": round(count / a.total_ms * 1e3, 3), "cpu_ms": round(a.cpu_s * 1e3 / count, 3)} for a in answers]
    return dict(zip(CONTENDERS, [http, *others], strict=True))
