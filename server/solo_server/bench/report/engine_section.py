"""An engine result: the network alone, and its rate relative to the machine's best matrix product."""

from __future__ import annotations

from typing import Any

from solo_server.bench.report.bars import Bar, Stack, bar_chart, colour, stack_chart, stage_legend
from solo_server.bench.report.contender_charts import fps_card, ratio_card
from solo_server.bench.report.markup import Markup, card, table, tag
from solo_server.bench.report.numbers import CROSS, interval, ms, percent, short, times
from solo_server.bench.result import Document

RATE_HEADINGS = ["contender", "batch", "part", "ms", "GFLOP", "GFLOP/s", "of best"]
HEADINGS = [
    "contender",
    "batch",
    "median",
    "mean",
    "p90",
    "p99",
    "images/s",
    "CPU s",
    "time",
    "rounds",
    "other processes' CPU",
]


def engine_section(content: Document) -> list[Markup]:
    """Charts for each batch size, then tables."""
    cards: list[Markup | None] = []
    for number, batch in enumerate(content["settings"]["batches"]):
        entries = [_of_batch(contender, number, batch) for contender in content["contenders"]]
        measured = [entry for entry in entries if entry["figures"]]
        if measured:
            cards += [
                _rate_card(measured, content["best_matmul_gflop_per_s"], batch),
                ratio_card(measured, f", batch {batch}"),
            ]
            cards += [fps_card(measured, f", batch {batch}"), _parts_card(measured, batch)]
    if not cards:
        return [tag("p", "No round was completed.", class_="warn")]
    cards.append(
        card("Arithmetic by part", _description(content), table(RATE_HEADINGS, _rate_rows(content)), wide=True)
    )
    cards.append(card("All figures", "", table(HEADINGS, _rows(content)), wide=True))
    return [tag("div", cards, class_="cards")]


def _of_batch(contender: dict[str, Any], number: int, batch: int) -> dict[str, Any]:
    """A contender's result for one batch size; images per second count every image of a batch."""
    entry = {"name": contender["name"], **contender["batches"][number]}
    if entry["figures"]:
        entry["figures"] = {**entry["figures"], "fps": entry["figures"]["fps"] * batch}
    return entry


def _rate_card(entries: list[dict[str, Any]], best: float | None, batch: int) -> Markup:
    bars = []
    for index, entry in enumerate(entries):
        total = entry["rates"][0]
        text = f"{short(total['gflop_per_s'])} ({percent(total['share'])})" if best else short(total["gflop_per_s"])
        bars.append(Bar(entry["name"], total["gflop_per_s"], text, colour(index)))
    text = "Arithmetic that the network needs, per second; in brackets the share of the best float32 matrix product (dashed)."
    return card(f"GFLOP per second, batch {batch}", text, bar_chart(bars, mark=best), better="higher")


def _parts_card(entries: list[dict[str, Any]], batch: int) -> Markup:
    stacks = []
    for entry in entries:
        parts = {k: v for k, v in entry["figures"]["stages_ms"].items() if not k.startswith("tower ")}
        stacks.append(Stack(entry["name"], parts, ms(sum(parts.values()))))
    text = "Median milliseconds per batch. A single graph cannot be divided; peers run the full head, all masks of all cells."
    chart = stack_chart(stacks, same_scale=True)
    return card(f"Parts, batch {batch}", text, stage_legend(stacks), chart, better="lower")


def _description(content: Document) -> str:
    best = content["best_matmul_gflop_per_s"]
    measured = "was not measured" if best is None else f"reached {short(best)} GFLOP/s"
    height, width = content["settings"]["padded_hw"]
    size = f"{max(height, width)}{CROSS}{min(height, width)}, {'landscape' if width >= height else 'portrait'}"
    return f"One input of {size}. The best float32 matrix product in this run {measured}."


def _rate_rows(content: Document) -> list[list[str]]:
    return [
        [
            contender["name"],
            str(entry["batch"]),
            rate["part"],
            ms(rate["ms"]),
            short(rate["gflop"]),
            short(rate["gflop_per_s"]),
            percent(rate["share"]),
        ]
        for contender in content["contenders"]
        for entry in contender["batches"]
        for rate in entry["rates"]
    ]


def _rows(content: Document) -> list[list[str]]:
    rows = []
    for contender in content["contenders"]:
        for number, entry in enumerate(contender["batches"]):
            if figures := _of_batch(contender, number, entry["batch"])["figures"]:
                ratio = entry["against_first"] or {}
                rounds = interval(ratio.get("time_min"), ratio.get("time_max"))
                measured = [ms(figures[name]) for name in ("median_ms", "mean_ms", "p90_ms", "p99_ms")]
                costs = [short(figures["fps"]), short(figures["cpu_s"]), times(ratio.get("time")), rounds]
                foreign = percent(figures["foreign_share"])
                rows.append([contender["name"], str(entry["batch"]), *measured, *costs, foreign])
    return rows
