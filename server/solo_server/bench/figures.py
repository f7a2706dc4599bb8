"""Computes figures from samples: percentiles, images per second by the paper's protocol, and ratios between contenders."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from solo_server.bench.machine import NOISY_SHARE
from solo_server.bench.samples import Sample

MIN_QUIET_SAMPLES = 3  # for a median
TICK_S = 0.01  # resolution of /proc/stat
AFTER_TOWERS = (
    "masks",
    "nms",
    "encode",
    "after_towers",
)  # stages after the mask towers, by our names and the peers'
FLOW = (
    *("decode", "preprocess", "network", "backbone", "neck", "categories", "towers"),
    *("masks", "nms", "postprocess", "after_towers", "encode"),
)
"""All stages of us and of the peers, in the order of the data flow; each contender has some of them."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one contender. Times in milliseconds per image; `fps`: images per second, mean over the runs.

    after_towers_ms: median of everything after the mask towers; `None` if the stages do not show it. quiet_samples,
    quiet_median_ms: samples with little CPU use by other processes, and their median if there are enough.
    """

    samples: int
    fps: float
    fps_of_runs: tuple[float, ...]
    median_ms: float
    mean_ms: float
    p90_ms: float
    p99_ms: float
    stages_ms: dict[str, float]
    after_towers_ms: float | None
    instances: float
    cpu_s: float
    foreign_share: float | None
    quiet_samples: int
    quiet_median_ms: float | None
    peak_rss_mib: float | None


@dataclass(frozen=True, slots=True)
class Ratio:
    """A contender relative to the first one; 2.0 is twice the time or memory.

    time: ratio of medians; quiet_time: ratio of the medians of quiet samples; time_min, time_max: lowest and highest ratio of the
    rounds, which ran side by side.
    """

    time: float
    quiet_time: float | None
    time_min: float
    time_max: float
    memory: float | None
    after_towers: float | None


def figures_of(samples: Sequence[Sample], cores: int, peak_rss_mib: float | None) -> Figures:
    """Figures of one contender's samples; there must be at least one."""
    times = [s.total_ms for s in samples]
    fps = fps_of_runs(samples)
    after = [after_towers_ms(s.stages_ms) for s in samples]
    known = [ms for ms in after if ms is not None]
    return Figures(
        samples=len(samples),
        fps=round(statistics.fmean(fps), 4),
        fps_of_runs=tuple(round(value, 4) for value in fps),
        median_ms=round(statistics.median(times), 3),
        mean_ms=round(statistics.fmean(times), 3),
        p90_ms=round(percentile(times, 90), 3),
        p99_ms=round(percentile(times, 99), 3),
        stages_ms=stage_medians(samples),
        after_towers_ms=round(statistics.median(known), 3) if known else None,
        instances=round(statistics.fmean(s.instances for s in samples), 2),
        cpu_s=round(statistics.fmean(s.cpu_s for s in samples), 4),
        foreign_share=foreign_share(samples, cores),
        quiet_samples=len(quiet(samples, cores)),
        quiet_median_ms=quiet_median_ms(samples, cores),
        peak_rss_mib=peak_rss_mib,
    )


def ratio_to(
    first: Sequence[Sample], other: Sequence[Sample], cores: int, memory: tuple[float | None, float | None]
) -> Ratio:
    """`other` relative to `first`; memory: peaks of `first` and `other`."""
    base, mine = _by_round(first), _by_round(other)
    rounds = [sum(mine[r]) / sum(base[r]) for r in base if r in mine and len(mine[r]) == len(base[r])]
    time = statistics.median(s.total_ms for s in other) / statistics.median(s.total_ms for s in first)
    after = [_median_or_none(after_towers_ms(s.stages_ms) for s in samples) for samples in (first, other)]
    return Ratio(
        time=round(time, 3),
        quiet_time=_quotient(quiet_median_ms(other, cores), quiet_median_ms(first, cores)),
        time_min=round(min(rounds, default=time), 3),
        time_max=round(max(rounds, default=time), 3),
        memory=_quotient(memory[1], memory[0]),
        after_towers=_quotient(after[1], after[0]),
    )


def percentile(values: Iterable[float], percent: float) -> float:
    """The value below which `percent` of `values` lie, with linear interpolation, as numpy does by default."""
    ordered = sorted(values)
    position = percent / 100 * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def fps_of_runs(samples: Sequence[Sample]) -> list[float]:
    """Images per second of each run: its number of images over the sum of their times."""
    runs: defaultdict[int, list[float]] = defaultdict(list)
    for sample in samples:
        runs[sample.run].append(sample.total_ms)
    return [len(times) / sum(times) * 1e3 for times in runs.values()]


def stage_medians(samples: Sequence[Sample]) -> dict[str, float]:
    """Median of each stage, in order of appearance; a stage missing from a sample counts as 0."""
    names = list(dict.fromkeys(name for s in samples for name in s.stages_ms if name != "total"))
    return {name: round(statistics.median(s.stages_ms.get(name, 0.0) for s in samples), 3) for name in names}


def in_flow(stages: Iterable[str]) -> list[str]:
    """The stages without duplicates, in the order of `FLOW`; unknown stages come last."""
    return sorted(dict.fromkeys(stages), key=lambda name: FLOW.index(name) if name in FLOW else len(FLOW))


def after_towers_ms(stages_ms: Mapping[str, float]) -> float | None:
    """Everything after the mask towers: last mask convolution, sigmoid, upsampling, thresholds, NMS, resize, RLE."""
    if "after_towers" in stages_ms:
        return stages_ms["after_towers"]
    if "masks" not in stages_ms:
        return None
    return sum(stages_ms.get(name, 0.0) for name in AFTER_TOWERS)


def foreign_share(samples: Sequence[Sample], cores: int) -> float | None:
    """The share of the machine that other processes used while these samples were taken, 0..1; `None` if not known."""
    known = [s for s in samples if s.foreign_cpu_s is not None]
    wall_s = sum(s.wall_s for s in known)
    if wall_s == 0:
        return None
    return round(max(0.0, sum(s.foreign_cpu_s or 0.0 for s in known) / (wall_s * cores)), 4)


def quiet(samples: Sequence[Sample], cores: int) -> list[Sample]:
    """Samples during which other processes used at most 5 % of the machine plus one clock tick; all samples if not known."""
    return [s for s in samples if (s.foreign_cpu_s or 0.0) <= NOISY_SHARE * s.wall_s * cores + TICK_S]


def quiet_median_ms(samples: Sequence[Sample], cores: int) -> float | None:
    """Median of the quiet samples; `None` if there are too few."""
    times = [s.total_ms for s in quiet(samples, cores)]
    return round(statistics.median(times), 3) if len(times) >= MIN_QUIET_SAMPLES else None


def _by_round(samples: Sequence[Sample]) -> dict[int, list[float]]:
    rounds: defaultdict[int, list[float]] = defaultdict(list)
    for sample in samples:
        rounds[sample.round].append(sample.total_ms)
    return dict(rounds)


def _median_or_none(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _quotient(above: float | None, below: float | None) -> float | None:
    return round(above / below, 3) if above is not None and below else None
