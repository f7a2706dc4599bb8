"""How much an export may lose against the original, and the error message where it loses more."""

from __future__ import annotations

import math
from collections.abc import Mapping

from solo_export.arguments import TOLERANCE_AP, TOLERANCES
from solo_export.images import counted
from solo_export.precision import Precision
from solo_export.verify import ImageReport

_EXPORTS: Mapping[Precision, str] = {"fp32": "the export", "fp16": "fp16", "int8": "INT8"}
_ORIGINALS: Mapping[Precision, str] = {"fp32": "the original network", "fp16": "fp32", "int8": "fp32"}


class OutOfTolerance(ValueError):
    """The export loses more than allowed; nothing is written. The message says what was compared, the limit, and what to do."""


def check_loss(
    report: ImageReport, mask_aps: Mapping[str, float | int], precision: Precision, tolerance: float | None
) -> None:
    """Check mask AP (0..1) where it was measured, else the agreement on images. tolerance: `None` for the default.

    Raises:
        OutOfTolerance: the loss is above the tolerance.
    """
    if mask_aps:
        limit = TOLERANCE_AP if tolerance is None else tolerance
        if 100 * (mask_aps["before"] - mask_aps["after"]) > limit:
            lost = _ap_lost(mask_aps, precision, limit)
            raise OutOfTolerance(f"{lost}; {_reasons(precision)}; --tolerance POINTS allows more")
        return
    limit = TOLERANCES[precision] if tolerance is None else tolerance
    if 100 * (1 - report.agreement) > limit:
        lost, other = _detections_lost(report, precision, limit), "--annotations FILE judges by mask AP"
        raise OutOfTolerance(f"{lost}; {_reasons(precision)}; --tolerance PERCENT allows more, {other}")


def _ap_lost(mask_aps: Mapping[str, float | int], precision: Precision, limit: float) -> str:
    before, after = 100 * mask_aps["before"], 100 * mask_aps["after"]
    return (
        f"{_EXPORTS[precision]} loses too much mask AP: {after:.2f} instead of {before:.2f} of {_ORIGINALS[precision]} "
        f"on {mask_aps['pictures']} annotated images, {before - after:.2f} points lost, {limit:g} allowed"
    )


def _detections_lost(report: ImageReport, precision: Precision, limit: float) -> str:
    clear = f" with a score above {report.clear_score:g}" if report.clear_score else ""
    iou = f" (mean mask IoU {report.mean_mask_iou:.2f})" if report.matched else ""
    agreement = math.floor(1000 * report.agreement) / 10  # rounded down: never shown as equal to the limit
    return (
        f"{_EXPORTS[precision]} changes too many detections: {report.matched} of {report.instances}{clear} match "
        f"{_ORIGINALS[precision]} on {counted(report.images, report.source)}{iou}, {report.extra} are extra: "
        f"agreement {agreement:g} %, required {100 - limit:g} %"
    )


def _reasons(precision: Precision) -> str:
    images = "--calibration or --images" if precision == "int8" else "--images"
    return f"nothing is written; usual reasons: untrained weights, or images in {images} that are unlike those to be served"
