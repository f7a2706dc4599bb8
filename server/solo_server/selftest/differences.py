"""Where two snapshots of one image differ, stage by stage in the order of the flow: the first difference is where to look.

A stage is compared only on what both have: a candidate that one side lacks is a difference of `candidates`, not of later stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solo_server.selftest.matching import Agreement, match
from solo_server.selftest.stage_snapshot import Measured, Network, Ranked, StageSnapshot
from solo_server.selftest.tolerance import PIXELS, SHARE, Tolerance
from solo_server.types import Candidates, Float32, Instance

NETWORK_STAGES = ("level features", "scores", "mask features")
STAGES = ("candidates", "areas", "maskness", "best", "kept", "instances")
SHOWN = 5  # examples of what differs

Figures = dict[str, float | int]


@dataclass(frozen=True, slots=True)
class Difference:
    """One stage of one image. figures: how far apart; problem: what exceeds the tolerance, empty if nothing does."""

    stage: str
    figures: Figures
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Thresholds at which an instance may be missing: the least score, and the largest number of instances."""

    score_threshold: float
    max_instances: int


def first_problem(differences: Sequence[Difference]) -> Difference | None:
    """The first stage, in the order of the flow, that exceeds its tolerance."""
    return next((difference for difference in differences if difference.problem), None)


def compare_networks(expected: Network, found: Network, tolerance: Tolerance) -> list[Difference]:
    """Level features, scores, and the mask features of the levels that both have."""
    levels = [_map_error(one, other) for one, other in zip(expected.levels, found.levels, strict=True)]
    both = sorted(set(expected.features) & set(found.features))
    towers = {
        level: max(_map_error(a, b) for a, b in zip(expected.features[level], found.features[level], strict=True))
        for level in both
    }
    return [
        _maps("level features", dict(enumerate(levels)), tolerance),
        _scores(expected.scores, found.scores, tolerance),
        _maps("mask features", towers, tolerance),
    ]


def compare_snapshots(
    expected: StageSnapshot, found: StageSnapshot, tolerance: Tolerance, cuts: Cuts
) -> list[Difference]:
    """All stages of post-processing, from the same scores and features."""
    return [
        _candidates(expected.candidates, found.candidates),
        _areas(expected.measured, found.measured),
        _maskness(expected.measured, found.measured, tolerance),
        _ranked("best", expected.best, found.best, tolerance),
        _ranked("kept", expected.kept, found.kept, tolerance),
        compare_instances(expected.instances, found.instances, tolerance, cuts),
    ]


def compare_instances(
    expected: Sequence[Instance], found: Sequence[Instance], tolerance: Tolerance, cuts: Cuts
) -> Difference:
    """The results: pairs, their scores and masks, and instances that only one side has."""
    agreement = match(expected, found)
    lost = [expected[i] for i in agreement.missing]
    more = [found[j] for j in agreement.extra]
    missing = [
        one for one in lost if not _is_excused(one, expected, tolerance, cuts) or _has_double(one, more, tolerance)
    ]
    extra = [one for one in more if not _is_excused(one, found, tolerance, cuts) or _has_double(one, lost, tolerance)]
    counted = len(agreement.pairs) + len(missing)
    share = len(agreement.pairs) / counted if counted else 1.0
    scores = max((pair.score_difference for pair in agreement.pairs), default=0.0)
    ious = [pair.iou for pair in agreement.pairs] or [1.0]
    figures: Figures = {
        "expected": len(expected),
        "found": len(found),
        "matched": len(agreement.pairs),
        "missing": len(missing),
        "extra": len(extra),
        "excused": len(agreement.missing) + len(agreement.extra) - len(missing) - len(extra),
        "matched_share": share,
        "score_difference_max": scores,
        "mask_iou_mean": float(np.mean(ious)),
        "mask_iou_min": min(ious),
        "pixels_differing_max": max((pair.pixels for pair in agreement.pairs), default=0),
        "rle_identical_share": _identical(agreement),
    }
    problems = (
        (share < tolerance.matched, f"{len(missing)} of {counted} instances missing, first {_described(missing)}"),
        (len(extra) > counted * (1 - tolerance.matched), f"{len(extra)} too many, first {_described(extra)}"),
        (scores > tolerance.scores, f"a score differs by {scores:.3g}"),
        (float(np.mean(ious)) < tolerance.mask_iou, f"masks overlap by {np.mean(ious):.4f} in the mean"),
        (min(ious) < tolerance.worst_iou, f"a mask overlaps by {min(ious):.4f} only"),
    )
    return Difference("instances", figures, _first(problems))


def _maps(stage: str, errors: Mapping[int, float], tolerance: Tolerance) -> Difference:
    figures: Figures = {f"level_{level}": error for level, error in errors.items()}
    worst = max(errors, key=lambda level: _ordered(errors[level]), default=None)
    if worst is None or errors[worst] <= tolerance.features:
        return Difference(stage, figures)
    return Difference(stage, figures, f"level {worst} is off by {errors[worst]:.3g} of its size")


def _scores(expected: Float32, found: Float32, tolerance: Tolerance) -> Difference:
    if not np.isfinite(found).all():
        return Difference("scores", {"not_finite": int((~np.isfinite(found)).sum())}, "are not all finite")
    difference = np.abs(expected - found)
    # points-NMS keeps one of two neighbours: where they are equal up to rounding, the other may win, in another cell
    tipped = ((expected == 0) != (found == 0)) & (difference > tolerance.scores)
    worst = float(difference[~tipped].max(initial=0.0))
    figures: Figures = {"difference_max": worst, "tipped": int(tipped.sum()), "above_0.1": int((expected > 0.1).sum())}
    few = max(2, figures["above_0.1"] * (1 - tolerance.matched))
    problems = (
        (worst > tolerance.scores, f"a score differs by {worst:.3g}"),
        (figures["tipped"] > few, f"{figures['tipped']} cells differ in points-NMS"),
    )
    return Difference("scores", figures, _first(problems))


def _candidates(expected: Candidates, found: Candidates) -> Difference:
    """Exact: both sides compare the same numbers."""
    one, other = _keys(expected), _keys(found)
    figures: Figures = {
        "expected": len(one),
        "found": len(other),
        "missing": len(one.keys() - other.keys()),
        "extra": len(other.keys() - one.keys()),
    }
    shared = one.keys() & other.keys()
    wrong = [key for key in shared if one[key] != other[key]]
    problems = (
        (one.keys() != other.keys(), f"{figures['missing']} missing, {figures['extra']} too many (cell, class)"),
        (list(one) != list(other), "are not in order of cell, then class"),
        (bool(wrong), f"scores of {sorted(wrong)[:SHOWN]} are not those of the network"),
    )
    return Difference("candidates", figures, _first(problems))


def _areas(expected: Measured, found: Measured) -> Difference:
    one, other, cells = _on_shared_cells(expected, found, lambda measured: measured.areas)
    difference = np.abs(one - other)
    off = difference > np.maximum(PIXELS, SHARE * one)
    figures: Figures = {"cells": len(cells), "difference_max": int(difference.max(initial=0)), "off": int(off.sum())}
    listed = ", ".join(f"cell {cells[i]}: {other[i]} pixels instead of {one[i]}" for i in np.flatnonzero(off)[:SHOWN])
    return Difference("areas", figures, listed)


def _maskness(expected: Measured, found: Measured, tolerance: Tolerance) -> Difference:
    one, other, cells = _on_shared_cells(expected, found, lambda measured: measured.maskness)
    pixels, _, _ = _on_shared_cells(expected, found, lambda measured: measured.areas)
    # a pixel that changed sides has about the threshold's value: it moves the mean of few pixels more than that of many
    allowed = tolerance.scores + PIXELS / np.maximum(pixels, 1)
    off = ~(np.abs(one - other) <= allowed)
    figures: Figures = {"difference_max": float(np.abs(one - other).max(initial=0.0)), "off": int(off.sum())}
    listed = ", ".join(f"cell {cells[i]}: {other[i]:.6f} instead of {one[i]:.6f}" for i in np.flatnonzero(off)[:SHOWN])
    return Difference("maskness", figures, listed)


def _ranked(stage: str, expected: Ranked, found: Ranked, tolerance: Tolerance) -> Difference:
    """The same members with the same falling scores. The order of nearly equal scores, and the last members, may differ."""
    one, other = _keys(expected), _keys(found)
    shared = one.keys() & other.keys()
    lowest = min(*expected.scores.tolist(), *found.scores.tolist(), np.inf, np.inf)
    lost = [key for key in one.keys() - other.keys() if one[key] > lowest + tolerance.excused]
    extra = [key for key in other.keys() - one.keys() if other[key] > lowest + tolerance.excused]
    worst = max(shared, key=lambda key: _ordered(abs(one[key] - other[key])), default=None)
    difference = 0.0 if worst is None else abs(one[worst] - other[worst])
    figures: Figures = {
        "expected": len(one),
        "found": len(other),
        "missing": len(lost),
        "extra": len(extra),
        "score_difference_max": difference,
    }
    problems = (
        (bool(lost), f"(cell, class) missing: {sorted(lost)[:SHOWN]}"),
        (bool(extra), f"(cell, class) too many: {sorted(extra)[:SHOWN]}"),
        (not difference <= tolerance.scores, f"score of (cell, class) {worst} differs by {difference:.3g}"),
        (bool((np.diff(found.scores) > 0).any()), "scores do not fall"),
        (len(other) != len(found.scores), "a (cell, class) occurs twice"),
    )
    return Difference(stage, figures, _first(problems))


def _on_shared_cells(
    expected: Measured, found: Measured, values: Callable[[Measured], NDArray[np.generic]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    cells, one, other = np.intersect1d(expected.cells, found.cells, return_indices=True)
    return values(expected)[one].astype(np.float64), values(found)[other].astype(np.float64), cells


def _keys(ranked: Candidates | Ranked) -> dict[tuple[int, int], float]:
    return dict(
        zip(zip(ranked.cells.tolist(), ranked.labels.tolist(), strict=True), ranked.scores.tolist(), strict=True)
    )


def _is_excused(one: Instance, instances: Sequence[Instance], tolerance: Tolerance, cuts: Cuts) -> bool:
    """Whether rounding may have removed it: its score is near the threshold, or near the last one of a full result."""
    is_full = len(instances) >= cuts.max_instances
    lowest = min(i.score for i in instances) if is_full else cuts.score_threshold
    return one.score <= max(lowest, cuts.score_threshold) + tolerance.excused


def _has_double(one: Instance, others: Sequence[Instance], tolerance: Tolerance) -> bool:
    """Whether the other side has it with another mask: then it was not removed."""
    return any(o.class_id == one.class_id and abs(o.score - one.score) <= tolerance.scores for o in others)


def _identical(agreement: Agreement) -> float:
    pairs = agreement.pairs
    return sum(pair.is_identical for pair in pairs) / len(pairs) if pairs else 1.0


def _map_error(expected: Float32, found: Float32) -> float:
    """Relative error of a map; NaN where it is not finite."""
    size = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    error = float(np.sqrt(np.mean(np.square(expected.astype(np.float64) - found))))
    return error / size if size else error


def _ordered(value: float) -> float:
    """For comparison: NaN is larger than any number."""
    return np.inf if np.isnan(value) else value


def _described(instances: Sequence[Instance]) -> str:
    if not instances:
        return ""
    one = instances[0]
    return f"class {one.class_id}, score {one.score:.4f}, box {list(one.box_xywh)}"


def _first(problems: Sequence[tuple[bool, str]]) -> str:
    return next((problem for applies, problem in problems if applies), "")
