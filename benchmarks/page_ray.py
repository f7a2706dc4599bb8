"""The tables of docs/ray.md: what Ray costs, and what callers get while something fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from page_markdown import head, row
from page_results import NotMeasured, Results

FILE = "ray_serve"
NAMES = {
    "ray_default_proxy": "one replica with all cores, Ray's own proxy",
    "ray_haproxy": "one replica with all cores, HAProxy",
    "ray_two_nodes": "two nodes with a replica of one core each, Ray's own proxy",
    "ray_two_nodes_haproxy": "two nodes with a replica of one core each, HAProxy",
}
AGAINST = {"ray_default_proxy": "plain", "ray_haproxy": "plain"}


def ray_throughput(results: Results) -> Iterator[str]:
    """Images/s on Ray, relative to `solo serve` with the same cores in the same round."""
    part = _part(results, "throughput")
    yield from head("on Ray", "against", "images/s", "relative")
    for name, text in NAMES.items():
        against = "`solo serve`" if AGAINST.get(name) == "plain" else "`solo serve --workers 2`"
        ratio = part["ratios"][name]
        percent = f"{100 * ratio['median']:.0f} % ({100 * ratio['min']:.0f} to {100 * ratio['max']:.0f})"
        yield row(text, against, f"{part['per_s'][name]['median']:.1f}", percent)


def ray_faults(results: Results) -> Iterator[str]:
    """Overload, a killed replica, memory."""
    overload, kill, soak = (_part(results, name) for name in ("overload", "kill", "soak"))
    yield from head("", "measured")
    for name, text in {"ray_default_proxy": "Ray's own proxy", "ray_haproxy": "HAProxy"}.items():
        found = overload[name]
        yield row(f"overload at 4x, {text}: answers relative to capacity", f"{100 * found['goodput_share']:.0f} %")
        yield row(f"overload at 4x, {text}: p99 of refusals", f"{found['refused_ms']['p99']} ms")
    yield row(
        "one of two replicas killed: requests answered, or refused with 503", f"{100 * kill['answered_or_503']:.2f} %"
    )
    yield row("one of two replicas killed: both run again after", f"{kill['replaced_after_s']} s")
    yield row(
        f"replica's memory over {soak['images']} images: growth after the first third", f"{soak['growth_percent']} %"
    )


def _part(results: Results, name: str) -> dict[str, Any]:
    content = results.read(FILE)
    if name not in content:
        raise NotMeasured(f"{FILE}.json, part {name}")
    part: dict[str, Any] = content[name]
    return part


RAY_TABLES = (ray_throughput, ray_faults)
