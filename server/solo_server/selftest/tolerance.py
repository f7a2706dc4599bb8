"""How far the GPU may differ from the CPU, and why. Verdicts use these numbers; the report contains them.

Same inputs: products are summed in another order and `expf` differs in its last bit, so a pixel whose value equals the mask
threshold up to rounding may change sides. All other arithmetic is the same.
Networks: rounding of the precision. The tolerances were set generously before any GPU was used; please report even a narrow FAIL.
"""

from __future__ import annotations

from dataclasses import dataclass

PIXELS, SHARE = 2, 1e-3  # pixels of a mask at the mask stride that may change sides: this number, or this share of it


@dataclass(frozen=True, slots=True)
class Tolerance:
    """features: root of the mean square of the difference, over that of the expected map; scores: the largest difference.

    matched: least share of instances with a match; mask_iou: least mean over pairs; worst_iou: least of any pair;
    excused: instances whose score is this close to a threshold may be missing.
    """

    features: float
    scores: float
    matched: float
    mask_iou: float
    worst_iou: float
    excused: float


SAME_INPUTS = Tolerance(features=0.0, scores=1e-4, matched=1.0, mask_iou=0.999, worst_iou=0.98, excused=1e-4)
NETWORK = {
    "fp32": Tolerance(features=1e-3, scores=2e-3, matched=0.99, mask_iou=0.995, worst_iou=0.8, excused=4e-3),
    "fp16": Tolerance(features=2e-2, scores=3e-2, matched=0.95, mask_iou=0.98, worst_iou=0.5, excused=6e-2),
    "int8": Tolerance(features=0.3, scores=0.3, matched=0.7, mask_iou=0.9, worst_iou=0.5, excused=0.3),
}
