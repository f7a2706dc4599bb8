"""How close each decision of the reference is to the opposite one, so that goldens test code and not rounding."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from catalogue import Golden
from records import MASK_THRESHOLD, SCORE_THRESHOLD, STRIDES, Candidates, find_candidates
from reference_model import Overheard, decay

FILTER_THRESHOLD = 0.05
FIRST_BEFORE_NMS = 500
FIRST_AFTER_NMS = 100
NEAR_TIE = 3e-5  # far beyond what rounding moves a score by
SWAP_CHANGE = 1e-4  # of a decayed score


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Smallest distances of one image to a decision; inf where the decision does not arise."""

    candidates: int
    after_stride: int
    after_filter: int
    final: int
    levels: tuple[int, ...]  # candidates of each
    classes: int  # with a candidate
    soft_pixels_near_half: float  # share of candidates' stride-4 pixels within 1e-4 of 0.5
    score_threshold_gap: float  # category scores to 0.1, from both sides
    points_nms_gap: float  # category scores > 0.1 to the highest of their three neighbours
    stride_filter_gap: float  # soft value of the pixel that decides whether an area exceeds its stride, to 0.5
    area_gap_pixels: int  # mask areas to the stride that they must exceed: pixels that would have to change
    first_500_gap: float  # scores on both sides of the cut before Matrix NMS
    same_label_order_gap: float  # scores of one label whose order decides who decays; inf beyond NEAR_TIE
    filter_gap: float  # decayed scores to 0.05, when this cut decides
    first_100_gap: float  # decayed scores on both sides of the cut, when this one decides
    final_order_gap: float  # neighbouring final scores; ties may swap places, so match instances by candidate
    float64_logit_error: float  # largest of all category logits against the same model in float64
    float64_soft_mask_error: float  # largest of all soft masks against the same model in float64
    float64_score_error: float  # largest of the final scores against the same model in float64
    float64_mask_iou: float  # smallest of the final masks against the same model in float64
    float64_same_decisions: bool


LIMITS = {  # about three times what float64_logit_error does to a score or a soft value
    "candidates": 200,
    "final": 40,
    "score_threshold_gap": 2e-5,
    "points_nms_gap": 2e-5,
    "stride_filter_gap": 1e-4,
    "first_500_gap": 2e-5,
    "same_label_order_gap": 8e-6,
    "filter_gap": 2e-4,
    "first_100_gap": 2e-4,
}


def measure(golden: Golden, heard: Overheard, exact: Overheard) -> Sensitivity:
    """``exact`` is the same image through the model in float64."""
    found = find_candidates(golden, heard)
    near_half = (found.soft_masks - MASK_THRESHOLD).abs() < 1e-4
    ranked, decayed = heard.scores.sort(descending=True).values, _without_nan(heard.decayed_scores)
    kept = int((decayed >= FILTER_THRESHOLD).sum())
    same = _same_decisions(golden, heard, exact)
    ours, theirs = heard.final_rows.argsort(), exact.final_rows.argsort()
    return Sensitivity(
        candidates=len(found.cells),
        after_stride=len(heard.scores),
        after_filter=kept,
        final=len(heard.final_scores),
        levels=_per_level(golden, found),
        classes=len(set(found.labels.tolist())),
        soft_pixels_near_half=float(near_half.float().mean()),
        score_threshold_gap=_smallest(heard.category_scores - SCORE_THRESHOLD),
        points_nms_gap=_points_nms_gap(heard),
        stride_filter_gap=_stride_filter_gap(found),
        area_gap_pixels=int(_smallest(found.areas - found.strides - 0.5) + 0.5),
        first_500_gap=_cut_gap(ranked, FIRST_BEFORE_NMS),
        same_label_order_gap=_same_label_order_gap(heard),
        filter_gap=_smallest(decayed - FILTER_THRESHOLD) if kept <= FIRST_AFTER_NMS else inf,
        first_100_gap=_cut_gap(decayed[:kept], FIRST_AFTER_NMS),
        final_order_gap=_smallest(heard.final_scores.diff()),
        float64_logit_error=_largest_error(heard.category_logits, exact.category_logits),
        float64_soft_mask_error=_largest_error(heard.soft_masks, exact.soft_masks),
        float64_score_error=float((heard.final_scores[ours] - exact.final_scores[theirs]).abs().max()) if same else inf,
        float64_mask_iou=_smallest_iou(heard.final_masks[ours], exact.final_masks[theirs]) if same else 0.0,
        float64_same_decisions=same,
    )


def knife_edges(sensitivity: Sensitivity) -> list[str]:
    """Names of the decisions that are nearer than LIMITS allow."""
    close = [name for name, limit in LIMITS.items() if getattr(sensitivity, name) < limit]
    return close if sensitivity.float64_same_decisions else [*close, "float64_same_decisions"]


def _same_decisions(golden: Golden, heard: Overheard, exact: Overheard) -> bool:
    """Same candidates and same survivors of every cut."""
    ours, theirs = find_candidates(golden, heard), find_candidates(golden, exact)
    return (
        torch.equal(ours.cells, theirs.cells)
        and torch.equal(ours.labels, theirs.labels)
        and torch.equal(ours.areas > ours.strides, theirs.areas > theirs.strides)
        and torch.equal(heard.decayed_scores.isnan(), exact.decayed_scores.isnan())
        and torch.equal(heard.final_rows.sort().values, exact.final_rows.sort().values)
    )


def _points_nms_gap(heard: Overheard) -> float:
    gaps = []
    for logits in heard.category_logits:
        scores = logits.sigmoid()
        padded = torch.nn.functional.pad(scores, (1, 0, 1, 0), value=-1.0)
        neighbours = torch.stack([padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1]]).amax(0)
        gaps.append((scores - neighbours)[scores > SCORE_THRESHOLD])
    return _smallest(torch.cat(gaps))


def _stride_filter_gap(found: Candidates) -> float:
    """An area exceeds stride s when the soft value of rank s + 1 exceeds 0.5."""
    ranked = found.soft_masks.flatten(1).topk(max(STRIDES) + 1).values
    return _smallest(ranked.gather(1, found.strides[:, None]) - MASK_THRESHOLD)


def _same_label_order_gap(heard: Overheard) -> float:
    """Smallest gap, below NEAR_TIE, between scores of one label that change some decayed score when they swap."""
    ranked, rows = heard.scores.sort(descending=True)
    for gap, first, second in _near_ties(ranked[:FIRST_BEFORE_NMS], heard.labels[rows]):
        swapped = heard.scores.clone()
        swapped[rows[first]], swapped[rows[second]] = ranked[second], ranked[first]
        change = (decay(heard.masks, heard.labels, swapped, heard.areas) - heard.decayed_scores).abs()
        if float(change.nan_to_num().max()) > SWAP_CHANGE:
            return gap
    return inf


def _near_ties(descending: torch.Tensor, labels: torch.Tensor) -> list[tuple[float, int, int]]:
    """(gap, i, j) of one label, nearest first."""
    gaps = (descending[:, None] - descending).triu(diagonal=1)
    near = (gaps < NEAR_TIE) & (labels[: len(gaps), None] == labels[: len(gaps)])
    pairs = near.triu(diagonal=1).nonzero().tolist()
    return sorted((float(gaps[i, j]), i, j) for i, j in pairs)


def _smallest_iou(masks: torch.Tensor, others: torch.Tensor) -> float:
    union = (masks | others).flatten(1).sum(1)
    return float(((masks & others).flatten(1).sum(1) / union.clamp(min=1)).where(union > 0, 1.0).min())


def _largest_error(tensors: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> float:
    return max(float((ours - theirs).abs().max()) for ours, theirs in zip(tensors, exact, strict=True))


def _per_level(golden: Golden, found: Candidates) -> tuple[int, ...]:
    ends = torch.tensor([grid * grid for grid in golden.grids]).cumsum(0)
    return tuple(torch.bucketize(found.cells, ends, right=True).bincount(minlength=len(ends)).tolist())


def _cut_gap(descending: torch.Tensor, first: int) -> float:
    return float(descending[first - 1] - descending[first]) if len(descending) > first else inf


def _without_nan(scores: torch.Tensor) -> torch.Tensor:
    return scores[~scores.isnan()].sort(descending=True).values


def _smallest(differences: torch.Tensor) -> float:
    return float(differences.abs().min()) if differences.numel() else inf
