"""The comparison counts what is matched, missing and extra, and is fooled by neither order nor cut-offs."""

import numpy as np
import pytest
from solo_export.plain import Detections
from solo_export.verify import ImageReport, compare
from solo_server.types import Geometry, PreparedImage

BOXES = {"left": (0, 0, 4, 4), "right": (0, 6, 4, 4), "lower": (5, 0, 3, 5), "shifted": (0, 1, 4, 4)}
Instances = list[tuple[int, float, str]]


def _detections(instances: Instances) -> Detections:
    masks = np.zeros((len(instances), 8, 10), bool)
    for mask, (_, _, name) in zip(masks, instances, strict=True):
        row, column, height, width = BOXES[name]
        mask[row : row + height, column : column + width] = True
    labels, scores = ([i[k] for i in instances] for k in (0, 1))
    return Detections(np.array(labels, np.int64), np.array(scores, np.float32), masks)


def _compare(original: Instances, export: Instances, lossless: bool = True) -> ImageReport:
    prepared = PreparedImage(np.zeros((8, 10, 3), np.uint8), Geometry((8, 10), (8, 10), (8, 10)))
    tail: Instances = [(9, 0.05, "lower")]  # the last instance of a list never counts: a cut-off may have made it last
    return compare(
        lambda _: _detections(original + tail),
        lambda _: _detections(export + tail),
        [prepared],
        source="test",
        lossless=lossless,
    )


TWO: Instances = [(0, 0.9, "left"), (1, 0.8, "right")]


def test_equal_instances_agree_fully() -> None:
    report = _compare(TWO, TWO[::-1])
    assert (report.instances, report.matched, report.extra, report.agreement) == (2, 2, 0, 1.0)
    assert (report.min_mask_iou, report.max_score_difference) == (1.0, 0.0)


def test_a_missing_instance_lowers_the_agreement() -> None:
    report = _compare(TWO, TWO[:1])
    assert (report.instances, report.matched, report.extra, report.agreement) == (2, 1, 0, 0.5)


def test_an_extra_instance_lowers_the_agreement() -> None:
    report = _compare(TWO[:1], TWO)
    assert (report.instances, report.matched, report.extra, report.agreement) == (1, 1, 1, 0.5)


def test_another_label_is_no_match() -> None:
    report = _compare([(0, 0.9, "left")], [(1, 0.9, "left")])
    assert (report.matched, report.extra, report.agreement) == (0, 1, 0.0)


def test_a_shifted_mask_counts_with_its_iou() -> None:
    report = _compare([(0, 0.9, "left")], [(0, 0.7, "shifted")])
    assert report.matched == 1
    assert report.mean_mask_iou == report.agreement == pytest.approx(12 / 20)
    assert report.max_score_difference == pytest.approx(0.2)


def test_equal_masks_are_told_apart_by_score() -> None:
    same: Instances = [(0, 0.9, "left"), (0, 0.4, "left")]
    assert _compare(same, same[::-1]).max_score_difference == 0.0


def test_lossy_exports_are_judged_by_clear_instances_only() -> None:
    faint: Instances = [(0, 0.9, "left"), (0, 0.2, "right")]
    assert _compare(faint, faint[:1]).agreement == 0.5
    report = _compare(faint, faint[:1], lossless=False)
    assert (report.instances, report.agreement) == (1, 1.0)


def test_a_clear_instance_may_be_matched_by_a_faint_one() -> None:
    report = _compare([(0, 0.31, "left")], [(0, 0.29, "left")], lossless=False)
    assert (report.matched, report.extra, report.agreement) == (1, 0, 1.0)


def test_no_instances_on_either_side_are_full_agreement() -> None:
    report = _compare([], [])
    assert (report.instances, report.agreement, report.mean_mask_iou) == (0, 1.0, 1.0)
    assert report.to_dict()["shapes"] == [[8, 10]]
