"""Results as text for a terminal: aligned columns, then notes."""

from __future__ import annotations

from collections.abc import Sequence

from solo_server.bench.figures import Figures, in_flow
from solo_server.bench.machine import NOISY_SHARE
from solo_server.bench.measure import Contender, Measurement

PAPER_FPS = 22.5  # SOLO-512 on one V100, mean of 5 runs (table 8 of the paper); other hardware, for orientation only

CAUTION = "this slows spinning thread pools more than others, so times and ratios are not reliable: measure again"
HEADINGS = (
    *("contender", "median", "p90", "p99 ms", "images/s", "instances", "CPU s", "peak MiB"),
    *("time", "rounds", "memory"),
)


def contender_table(measurement: Measurement) -> str:
    """One row per contender: times, images per second, memory, and ratios to the first."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    rows += [_row(contender, measurement.contenders[0]) for contender in measurement.contenders]
    return aligned(rows)


def stage_table(measurement: Measurement) -> str:
    """Median milliseconds of each stage; contenders have different stages, so some cells are empty."""
    figures = [(c.label, f) for c in measurement.contenders if (f := c.figures())]
    names = in_flow(name for _, f in figures for name in f.stages_ms)
    rows = [("stages, ms", *names, "after towers")]
    rows += [(label, *(_ms(f.stages_ms.get(n)) for n in names), _ms(f.after_towers_ms)) for label, f in figures]
    return aligned(rows)


def notes(measurement: Measurement) -> list[str]:
    """Warnings about the measurement."""
    lines = noise(foreign_shares(measurement))
    return [*lines, f"undisturbed samples only: {_quiet(measurement.contenders)}"] if lines else []


def foreign_shares(measurement: Measurement) -> list[tuple[str, float]]:
    """The share of the machine that other processes used while each contender was measured, if known."""
    figures = [(c.label, f) for c in measurement.contenders if (f := c.figures())]
    return [(label, f.foreign_share) for label, f in figures if f.foreign_share]


def noise(shares: Sequence[tuple[str, float]]) -> list[str]:
    """A warning if other processes used much of the machine; shares: 0..1, by what was measured."""
    if all(share <= NOISY_SHARE for _, share in shares):
        return []
    listed = ", ".join(f"{name} {share:.0%}" for name, share in shares)
    return [f"the machine was not idle; CPU used by other processes: {listed}; {CAUTION}"]


def _quiet(contenders: Sequence[Contender]) -> str:
    """Medians and ratios over the undisturbed samples."""
    parts = []
    for contender in contenders:
        figures, ratio = contender.figures(), contender.ratio_to(contenders[0])
        if figures is None or ratio is None:
            continue
        count = f"({figures.quiet_samples} of {figures.samples})"
        times = "" if contender is contenders[0] or ratio.quiet_time is None else f", {ratio.quiet_time:.2f}x"
        median = "too few" if figures.quiet_median_ms is None else f"{_ms(figures.quiet_median_ms)} ms"
        parts.append(f"{contender.label} {median} {count}{times}")
    return "; ".join(parts)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Text columns: the first left-aligned, the others right-aligned; empty columns are dropped."""
    kept = [i for i in range(len(rows[0])) if i == 0 or any(row[i] for row in rows[1:])]
    widths = [max(len(row[i]) for row in rows) for i in kept]
    return "\n".join(_line([row[i] for i in kept], widths) for row in rows)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = [
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join([first, *others]).rstrip()


def _row(contender: Contender, first: Contender) -> tuple[str, ...]:
    figures = contender.figures()
    if figures is None:
        return (contender.label, *[""] * 10)
    return (contender.label, *_times(figures), *_comparison(contender, first))


def _times(figures: Figures) -> tuple[str, ...]:
    return (
        _ms(figures.median_ms),
        _ms(figures.p90_ms),
        _ms(figures.p99_ms),
        f"{figures.fps:.2f}",
        f"{figures.instances:.1f}",
        f"{figures.cpu_s:.2f}",
        "" if figures.peak_rss_mib is None else f"{figures.peak_rss_mib:.0f}",
    )


def _comparison(contender: Contender, first: Contender) -> tuple[str, str, str]:
    ratio = contender.ratio_to(first)
    if contender is first or ratio is None:
        return ("1x", "", "1x") if contender is first else ("", "", "")
    memory = "" if ratio.memory is None else f"{ratio.memory:.2f}x"
    return f"{ratio.time:.2f}x", f"{ratio.time_min:.2f}..{ratio.time_max:.2f}", memory


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 1000 else f"{value:.0f}"
