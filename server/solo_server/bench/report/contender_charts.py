"""Charts that pipeline and engine results share: contenders compared by time, memory and images per second."""

from __future__ import annotations

from typing import Any

from solo_server.bench.report.bars import MUTED, Bar, bar_chart, colour
from solo_server.bench.report.markup import Markup, card
from solo_server.bench.report.numbers import interval, mib, short, times
from solo_server.bench.table import PAPER_FPS

PAPER = "paper: SOLO-512, V100"


def ratio_card(entries: list[dict[str, Any]], what: str = "") -> Markup | None:
    """Time of every contender relative to the first, with the range over interleaved rounds; what: appended to the title."""
    bars = []
    for index, entry in enumerate(entries):
        ratio = entry["against_first"]
        if ratio is None:
            bars += [Bar(entry["name"], 1.0, times(1.0), colour(index))] if index == 0 else []
            continue
        text = f"{times(ratio['time'])} ({interval(ratio['time_min'], ratio['time_max'])})"
        bars.append(Bar(entry["name"], ratio["time"], text, colour(index), ratio["time_min"], ratio["time_max"]))
    if len(bars) < 2:
        return None
    text = (
        f"Time relative to {entries[0]['name']}: ratio of medians; in brackets the range over rounds run side by side."
    )
    return card(f"Time relative to the first{what}", text, bar_chart(bars, mark=1.0), better="lower")


def part_ratio_card(entries: list[dict[str, Any]], key: str, title: str, text: str) -> Markup | None:
    """Another ratio to the first, lower is better: `memory` or `after_towers`."""
    known = [(i, e, e["against_first"][key]) for i, e in enumerate(entries) if e["against_first"]]
    bars = [Bar(e["name"], ratio, times(ratio), colour(i)) for i, e, ratio in known if ratio is not None]
    if not bars:
        return None
    first = Bar(entries[0]["name"], 1.0, times(1.0), colour(0))
    return card(title, text, bar_chart([first, *bars], mark=1.0), better="lower")


def fps_card(entries: list[dict[str, Any]], what: str = "") -> Markup:
    """Images per second, and the paper's figure for orientation."""
    bars = [
        Bar(e["name"], e["figures"]["fps"], short(e["figures"]["fps"]), colour(i))
        for i, e in enumerate(entries)
        if e["figures"]
    ]
    text = (
        f"Mean over the runs, as in the paper. The grey bar is the paper's {PAPER_FPS} images/s for SOLO-512 on one V100: "
        "other hardware, for orientation only."
    )
    chart = bar_chart([*bars, Bar(PAPER, PAPER_FPS, str(PAPER_FPS), MUTED)])
    return card(f"Images per second{what}", text, chart, better="higher")


def memory_card(entries: list[dict[str, Any]]) -> Markup | None:
    """Peak resident memory of each process."""
    bars = [
        Bar(e["name"], e["peak_rss_mib"], mib(e["peak_rss_mib"]), colour(i))
        for i, e in enumerate(entries)
        if e["peak_rss_mib"]
    ]
    text = "Peak resident memory of each contender's process, loading included."
    return card("Peak memory", text, bar_chart(bars), better="lower") if bars else None
