"""Horizontal bars: one value per row, or a row of parts; label, bar and value side by side, stacked on a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from solo_server.bench.figures import FLOW, in_flow
from solo_server.bench.report.markup import Markup, tag
from solo_server.bench.report.numbers import short

MUTED = "muted"
CONTENDER_COLOURS = 6
STAGE_COLOURS = len(FLOW) + 4  # four for stages that are not in FLOW


@dataclass(frozen=True, slots=True)
class Bar:
    """One row. text: the displayed value; low, high: ends of a whisker; colour: a class of the style sheet."""

    label: str
    value: float
    text: str
    colour: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """One row of stages, in milliseconds; their sum is its length. text: displayed at the end."""

    label: str
    parts: dict[str, float]
    text: str


def colour(index: int) -> str:
    """The class of the n-th contender; stages have other colours."""
    return f"c{index % CONTENDER_COLOURS}"


def stage_colours(stages: Sequence[str]) -> dict[str, str]:
    """The class of each stage, in the order of FLOW. A stage has the same colour in all charts."""
    names = in_flow(stages)
    others = [name for name in names if name not in FLOW]
    numbers = {name: FLOW.index(name) if name in FLOW else len(FLOW) + others.index(name) % 4 for name in names}
    return {name: f"s{number}" for name, number in numbers.items()}


def bar_chart(bars: Sequence[Bar], mark: float | None = None) -> Markup:
    """Bars on one scale from zero. mark: a value that every row marks with a line."""
    top = max([*(max(bar.value, bar.high or 0.0) for bar in bars), mark or 0.0]) * 1.02 or 1.0
    return tag("div", [_row(bar.label, _bar(bar, top, mark), bar.text) for bar in bars], class_="bars")


def stack_chart(stacks: Sequence[Stack], *, same_scale: bool) -> Markup:
    """Stages of each row in the order of FLOW; on one scale, or each row over the full width. See `stage_legend`."""
    colours = stage_colours([name for stack in stacks for name in stack.parts])
    longest = max((sum(stack.parts.values()) for stack in stacks), default=1.0)
    rows = []
    for stack in stacks:
        top = longest if same_scale else sum(stack.parts.values())
        rows.append(_row(stack.label, _parts(stack, colours, top or 1.0), stack.text))
    return tag("div", rows, class_="bars")


def stage_legend(stacks: Sequence[Stack]) -> Markup:
    """One legend for all charts of these stages."""
    colours = stage_colours([name for stack in stacks for name in stack.parts])
    return legend({stage_name(stage): colour for stage, colour in colours.items()})


def stage_name(stage: str) -> str:
    """The displayed name of a stage."""
    return stage.replace("_", " ")


def legend(colours: Mapping[str, str]) -> Markup:
    """The legend of the colours. colours: classes by name."""
    keys = [tag("li", tag("span", class_=f"key {colour}"), name) for name, colour in colours.items()]
    return tag("ul", keys, class_="legend")


def _row(label: str, bar: Markup, text: str) -> Markup:
    cells = (tag("div", label, class_="bar-label"), bar, tag("div", text, class_="bar-value"))
    return tag("div", *cells, class_="bar-row")


def _bar(bar: Bar, top: float, mark: float | None) -> Markup:
    shapes = [
        tag("rect", class_="track", width="100%", height="100%", rx=4),
        tag("rect", class_=f"fill {bar.colour}", width=_percent(bar.value / top), height="100%", rx=4),
    ]
    if bar.low is not None and bar.high is not None and bar.high > bar.low:
        left, right = _percent(bar.low / top), _percent(bar.high / top)
        shapes.append(tag("line", class_="whisker", x1=left, x2=right, y1="50%", y2="50%"))
        shapes += [tag("line", class_="whisker", x1=x, x2=x, y1="28%", y2="72%") for x in (left, right)]
    if mark is not None:
        x = _percent(mark / top)
        shapes.append(tag("line", class_="mark", x1=x, x2=x, y1="0", y2="100%"))
    return tag("svg", tag("title", f"{bar.label}: {bar.text}"), *shapes, class_="bar", role="img")


def _parts(stack: Stack, colours: Mapping[str, str], top: float) -> Markup:
    shapes, x = [tag("rect", class_="track", width="100%", height="100%", rx=4)], 0.0
    for name, colour in colours.items():
        if value := stack.parts.get(name, 0.0):
            title = tag("title", f"{stage_name(name)} {short(value)} ms")
            box = {"x": _percent(x / top), "width": _percent(value / top), "height": "100%"}
            shapes.append(tag("rect", title, class_=f"part {colour}", **box))
            x += value
    return tag("svg", *shapes, class_="bar tall", role="img", aria_label=f"{stack.label}: {stack.text}")


def _percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"
