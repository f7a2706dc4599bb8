"""A pipeline result: from bytes to RLE, stage by stage, contenders side by side."""

from __future__ import annotations

from typing import Any

from solo_server.bench.figures import in_flow
from solo_server.bench.report.bars import Stack, colour, stack_chart, stage_legend, stage_name
from solo_server.bench.report.contender_charts import fps_card, memory_card, part_ratio_card, ratio_card
from solo_server.bench.report.markup import Markup, card, table, tag
from solo_server.bench.report.numbers import interval, mib, ms, percent, short, times
from solo_server.bench.report.plots import histogram
from solo_server.bench.result import Document

SEVERAL_SCALES = 4.0  # highest total over lowest; beyond that a second chart shows each contender over the full width
TIMES = [
    "contender",
    "median",
    "mean",
    "p90",
    "p99",
    "images/s",
    "of runs",
    "instances",
    "after towers",
    "undisturbed median",
]
COSTS = [
    "contender",
    "time",
    "rounds",
    "undisturbed time",
    "memory",
    "after towers",
    "CPU s",
    "load",
    "loaded",
    "peak",
    "other processes' CPU",
]


def pipeline_section(content: Document) -> list[Markup]:
    """Tiles, charts and tables."""
    entries = [entry for entry in content["contenders"] if entry["figures"]]
    if not entries:
        return [tag("p", "No round was completed.", class_="warn")]
    cards = [
        ratio_card(entries),
        fps_card(entries),
        *_stage_cards(entries),
        *(_latency_card(entry, index) for index, entry in enumerate(entries)),
        memory_card(entries),
        part_ratio_card(entries, "memory", "Memory relative to the first", "Ratio of peaks."),
        part_ratio_card(
            entries,
            "after_towers",
            "After the mask towers, relative to the first",
            "Last mask convolution, sigmoid, upsampling, thresholds, NMS, resizing and RLE: ratio of medians.",
        ),
        card("All figures", "", _tables(entries), wide=True),
    ]
    return [_tiles(entries[0]), tag("div", cards, class_="cards")]


def _tiles(entry: dict[str, Any]) -> Markup:
    figures = entry["figures"]
    values = {
        f"median, {entry['name']}": ms(figures["median_ms"]),
        "p99": ms(figures["p99_ms"]),
        "images per second": short(figures["fps"]),
        "instances per image": short(figures["instances"]),
        "peak memory": mib(figures["peak_rss_mib"]),
    }
    tiles = [tag("div", tag("b", value), tag("span", name), class_="tile") for name, value in values.items()]
    return tag("div", tiles, class_="tiles")


def _stage_cards(entries: list[dict[str, Any]]) -> list[Markup]:
    stacks = [Stack(e["name"], e["figures"]["stages_ms"], ms(sum(e["figures"]["stages_ms"].values()))) for e in entries]
    names = in_flow(name for stack in stacks for name in stack.parts)
    totals = [sum(stack.parts.values()) for stack in stacks]
    charts = [stage_legend(stacks), stack_chart(stacks, same_scale=True)]
    if max(totals) > SEVERAL_SCALES * min(totals):
        charts.append(tag("p", "As shares of each contender's own total:", class_="note"))
        charts.append(stack_chart(stacks, same_scale=False))
    rows = [[s.label, *(short(s.parts[n]) if n in s.parts else "" for n in names)] for s in stacks]
    text = (
        "Medians in milliseconds, in the order of the flow. Contenders divide their work differently: our categories include "
        "backbone and neck; after towers is everything after the mask towers."
    )
    figures = table(["ms", *map(stage_name, names)], rows)
    return [card("Stages", text, *charts, figures, wide=True, better="lower")]


def _latency_card(entry: dict[str, Any], index: int) -> Markup:
    values = [sample["total_ms"] for sample in entry["samples"]]
    title = f"Latency of {entry['name']}"
    text = f"{len(values)} samples, bytes to RLE; dashed: p50, p90, p99."
    return card(title, text, histogram(values, colour(index)), better="lower")


def _tables(entries: list[dict[str, Any]]) -> list[Markup]:
    """Tables with every figure: times, then comparisons with the first contender and costs."""
    return [table(TIMES, [_times(entry) for entry in entries]), table(COSTS, [_costs(entry) for entry in entries])]


def _times(entry: dict[str, Any]) -> list[str]:
    figures = entry["figures"]
    return [
        entry["name"],
        *(ms(figures[name]) for name in ("median_ms", "mean_ms", "p90_ms", "p99_ms")),
        short(figures["fps"]),
        ", ".join(short(value) for value in figures["fps_of_runs"]),
        short(figures["instances"]),
        ms(figures["after_towers_ms"]),
        f"{ms(figures['quiet_median_ms'])} ({figures['quiet_samples']} of {figures['samples']})",
    ]


def _costs(entry: dict[str, Any]) -> list[str]:
    figures, ratio = entry["figures"], entry["against_first"] or {}
    return [
        entry["name"],
        times(ratio.get("time")),
        interval(ratio.get("time_min"), ratio.get("time_max")),
        times(ratio.get("quiet_time")),
        times(ratio.get("memory")),
        times(ratio.get("after_towers")),
        short(figures["cpu_s"]),
        ms(entry["load_ms"]),
        mib(entry["loaded_rss_mib"]),
        mib(figures["peak_rss_mib"]),
        percent(figures["foreign_share"]),
    ]
