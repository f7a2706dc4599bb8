"""A refusal says what was compared with what, what was wanted and what to do; what loses less is not refused."""

from dataclasses import replace

import pytest
from solo_export.tolerance import OutOfTolerance, check_loss
from solo_export.verify import ImageReport

REPORT = ImageReport(
    source="few",
    images=20,
    shapes=((96, 128),),
    clear_score=0.3,
    instances=52,
    matched=13,
    extra=5,
    mean_mask_iou=0.8123,
    min_mask_iou=0.5,
    max_score_difference=0.2,
    agreement=0.1853,
)
REASONS = (
    "nothing is written; usual reasons: untrained weights, or images in --calibration or --images "
    "that are unlike those to be served"
)


def test_a_refused_int8_export_reports_comparison_limit_and_remedy() -> None:
    with pytest.raises(OutOfTolerance) as caught:
        check_loss(REPORT, {}, "int8", None)
    assert str(caught.value) == (
        "INT8 changes too many detections: 13 of 52 with a score above 0.3 match fp32 on 20 images from few/ "
        "(mean mask IoU 0.81), 5 are extra: agreement 18.5 %, required 80 %; "
        f"{REASONS}; --tolerance PERCENT allows more, --annotations FILE judges by mask AP"
    )


def test_a_refused_fp32_export_is_compared_with_the_original_and_has_no_calibration() -> None:
    report = replace(REPORT, source="built-in", images=2, clear_score=0.0, matched=0, mean_mask_iou=1.0, agreement=0.0)
    with pytest.raises(OutOfTolerance) as caught:
        check_loss(report, {}, "fp32", None)
    assert str(caught.value).startswith(
        "the export changes too many detections: 0 of 52 match the original network on 2 built-in images, 5 are extra: "
        "agreement 0 %, required 98 %; nothing is written"
    )
    assert "--calibration" not in str(caught.value)


def test_a_refused_agreement_is_never_shown_as_equal_to_the_limit() -> None:
    with pytest.raises(OutOfTolerance, match=r"agreement 79\.9 %, required 80 %"):
        check_loss(replace(REPORT, agreement=0.79999), {}, "int8", None)


def test_a_loss_of_mask_ap_reports_both_values_and_the_limit() -> None:
    with pytest.raises(OutOfTolerance) as caught:
        check_loss(REPORT, {"pictures": 20, "before": 0.301, "after": 0.27}, "int8", None)
    assert str(caught.value) == (
        "INT8 loses too much mask AP: 27.00 instead of 30.10 of fp32 on 20 annotated images, 3.10 points lost, 1 allowed; "
        f"{REASONS}; --tolerance POINTS allows more"
    )


def test_a_loss_within_the_tolerance_is_accepted() -> None:
    check_loss(replace(REPORT, agreement=0.8), {}, "int8", 20.0)
    check_loss(REPORT, {}, "int8", 82.0)
    check_loss(REPORT, {"pictures": 20, "before": 0.301, "after": 0.295}, "int8", None)
    check_loss(REPORT, {"pictures": 20, "before": 0.3, "after": 0.27}, "int8", 4.0)
