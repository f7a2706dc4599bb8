"""Charts with two axes: a histogram of latencies, columns over levels, lines over levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from solo_server.bench.figures import percentile
from solo_server.bench.report.bars import colour, legend
from solo_server.bench.report.markup import Markup, tag
from solo_server.bench.report.numbers import Scale, ms, short

PERCENTILES = (50, 90, 99)


def histogram(values: Sequence[float], fill: str) -> Markup:
    """Distribution of latencies in milliseconds; lines at the percentiles."""
    low, high = min(values), max(values)
    bins = max(8, min(40, round(2 * len(values) ** 0.5)))
    width = (high - low) / bins or 1.0
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / width))] += 1
    shapes = [_column(index / bins, 1 / bins, count / max(counts), fill) for index, count in enumerate(counts) if count]
    percentiles = {p: percentile(values, p) for p in PERCENTILES}
    shapes += [_at(100 * (value - low) / (bins * width), f"p{p}") for p, value in percentiles.items()]
    summary = " · ".join(f"p{p} {ms(value)}" for p, value in percentiles.items())
    axis = tag("div", tag("span", ms(low)), tag("span", ms(high)), class_="axis ends")
    plot = tag("svg", *shapes, class_="plot low", role="img", aria_label=f"latencies: {summary}")
    return tag("div", tag("p", summary, class_="summary"), plot, axis, class_="chart")


def columns(labels: Sequence[str], values: Sequence[float], unit: str) -> Markup:
    """One column per level, with its value above."""
    scale = Scale(0.0, max([*values, 1e-9]) * 1.2)
    shapes = _grid(scale, unit)
    for index, value in enumerate(values):
        x, height = _centre(index, len(values)), scale.percent(value)
        box = {"x": f"{x - 30 / len(values):.2f}%", "width": f"{60 / len(values):.2f}%", "rx": 3}
        shapes.append(tag("rect", class_="fill c0", y=f"{100 - height:.2f}%", height=f"{height:.2f}%", **box))
        shapes.append(_text(x, 100 - height, short(value), dy=-6))
    return tag("div", tag("svg", *shapes, class_="plot", role="img", aria_label=unit), _levels(labels), class_="chart")


def lines(labels: Sequence[str], series: Mapping[str, Sequence[float | None]], unit: str) -> Markup:
    """One line per series over the same levels; a missing value interrupts the line. The last series shows its values."""
    scale = Scale.over([v for values in series.values() for v in values if v is not None])
    shapes = _grid(scale, unit)
    last = list(series)[-1]
    for number, (name, values) in enumerate(series.items()):
        points = [(_centre(i, len(values)), 100 - scale.percent(v), v) for i, v in enumerate(values) if v is not None]
        for (x1, y1, _), (x2, y2, _) in pairwise(points):
            ends = {"x1": f"{x1:.2f}%", "y1": f"{y1:.2f}%", "x2": f"{x2:.2f}%", "y2": f"{y2:.2f}%"}
            shapes.append(tag("line", class_=f"stroke {colour(number)}", **ends))
        for x, y, value in points:
            title = tag("title", f"{name}: {short(value)} {unit}")
            shapes.append(tag("circle", title, class_=f"fill {colour(number)}", cx=f"{x:.2f}%", cy=f"{y:.2f}%", r=4))
            shapes += [_text(x, y, short(value), dy=-9)] if name == last else []
    plot = tag("svg", *shapes, class_="plot", role="img", aria_label=unit)
    return tag("div", plot, _levels(labels), legend({name: colour(i) for i, name in enumerate(series)}), class_="chart")


def _column(x: float, width: float, share: float, fill: str) -> Markup:
    box = {"x": f"{100 * x:.2f}%", "width": f"{94 * width:.2f}%", "rx": "1.5"}
    return tag("rect", class_=f"fill {fill}", y=f"{100 - 92 * share:.2f}%", height=f"{92 * share:.2f}%", **box)


def _at(x: float, name: str) -> Markup:
    title = tag("title", name)
    return tag("line", title, class_=f"percentile {name}", x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1="0", y2="100%")


def _grid(scale: Scale, unit: str) -> list[Markup]:
    """Lines at round values, each labelled at its left end; the highest label has the unit."""
    shapes, ticks = [], scale.ticks()
    for tick in ticks:
        y = 100 - scale.percent(tick)
        shapes.append(tag("line", class_="grid", x1="0", x2="100%", y1=f"{y:.2f}%", y2=f"{y:.2f}%"))
        label = f"{short(tick)} {unit}" if tick == ticks[-1] else short(tick)
        shapes.append(tag("text", label, class_="tick", x="0", y=f"{y:.2f}%", dy=-4))
    return shapes


def _levels(labels: Sequence[str]) -> Markup:
    return tag("div", [tag("span", label) for label in labels], class_="axis levels")


def _centre(index: int, count: int) -> float:
    """The centre of the n-th of `count` equal fields, in percent from the left."""
    return 100 * (index + 0.5) / count


def _text(x: float, y: float, text: str, dy: int) -> Markup:
    return tag("text", text, class_="value", x=f"{x:.2f}%", y=f"{y:.2f}%", dy=dy, text_anchor="middle")
