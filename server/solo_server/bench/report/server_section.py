"""A server result: what callers see under load, and the server's costs."""

from __future__ import annotations

from typing import Any

from solo_server.bench.report.bars import colour
from solo_server.bench.report.markup import Markup, card, table, tag
from solo_server.bench.report.numbers import mib, ms, short
from solo_server.bench.report.plots import columns, histogram, lines
from solo_server.bench.result import Document

LATENCIES = {"p50": "p50_ms", "p90": "p90_ms", "p99": "p99_ms"}
LOOPS = {
    "closed": ("Closed loop", "Each caller sends its next request after the response.", "callers"),
    "open": (
        "Open loop",
        "Requests at a fixed rate; latency counts from the scheduled time.",
        "requests/s",
    ),
}
HEADINGS = [
    *("load", "200 responses/s", "p50", "p90", "p99", "highest", "requests", "errors", "seconds"),
    *("server CPU s", "resident", "client CPU s"),
]


def server_section(content: Document) -> list[Markup]:
    """Charts of both loops, a histogram for every load, and the table."""
    points = content["points"]
    if not points:
        return [tag("p", "There was no response.", class_="warn")]
    cards = [_loop_card(loop, [p for p in points if p["loop"] == loop]) for loop in LOOPS]
    cards += [_latency_card(point, index) for index, point in enumerate(points)]
    cards.append(card("All figures", "", table(HEADINGS, [_row(point) for point in points]), wide=True))
    model = content["model"]
    served = f"{model['name']} {model['version']} ({model['precision']}) on {model['engine']}"
    return [tag("p", served, class_="lead"), tag("div", cards, class_="cards")]


def _loop_card(loop: str, points: list[dict[str, Any]]) -> Markup | None:
    if not points:
        return None
    title, text, _ = LOOPS[loop]
    labels = [point_name(p) for p in points]
    latencies = {name: [p[key] for p in points] for name, key in LATENCIES.items()}
    throughput = columns(labels, [p["throughput"] for p in points], "200 responses/s")
    return card(
        f"{title}: throughput and latency",
        f"{text} Higher is better in the upper chart, lower in the lower one.",
        *(throughput, lines(labels, latencies, "ms")),
    )


def _latency_card(point: dict[str, Any], index: int) -> Markup | None:
    good = [latency_ms for _, latency_ms, code, *_ in point["shots"] if not code]
    if not good:
        return None
    chart = histogram(good, colour(index))
    return card(f"Latency, {point_name(point)}", f"{len(good)} responses with status 200.", chart, better="lower")


def point_name(point: dict[str, Any]) -> str:
    """Like `4 callers` or `10 requests/s`."""
    if point["loop"] == "closed" and point["level"] == 1:
        return "1 caller"
    return f"{point['level']:g} {LOOPS[point['loop']][2]}"


def _row(point: dict[str, Any]) -> list[str]:
    return [
        point_name(point),
        short(point["throughput"]),
        *(ms(point[key]) for key in (*LATENCIES.values(), "max_ms")),
        str(point["requests"]),
        ", ".join(f"{count} {code}" for code, count in point["errors"].items()) or "none",
        short(point["elapsed_s"]),
        short(point["cpu_s"]),
        mib(point["rss_mib"]),
        short(point["client_cpu_s"]),
    ]
