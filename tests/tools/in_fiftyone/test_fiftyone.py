"""`solo_client.adapters.fiftyone` against the real FiftyOne: its labels, samples, masks, COCO export and import.

A dataset of FiftyOne is a database of MongoDB's `mongod`, which its package downloads when it is built. Samples, labels, exporter
and importer work without one; the example needs one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fiftyone
import fiftyone.utils.coco as fouc
import numpy as np
import pytest
from eta.core.geometry import BoundingBox
from made_results import LABELS, random_masks, result_of, tiny_masks
from numpy.typing import NDArray
from PIL import Image
from solo_client import Result, SoloClient
from solo_client.adapters.fiftyone import relative_box, to_detections
from support.paths import ASTRONAUT

MASKS = pytest.mark.parametrize("masks", [tiny_masks(), random_masks(60, (53, 197), seed=8)], ids=["tiny", "random"])


def _full_masks(detections: fiftyone.Detections, width: int, height: int) -> list[NDArray[np.bool_]]:
    """The masks as FiftyOne puts them into the image."""
    return [d.to_segmentation(frame_size=(width, height), target=1).mask == 1 for d in detections.detections]


def _box_again(box_xywh: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels that FiftyOne takes from a relative box."""
    x, y, relative_width, relative_height = relative_box(box_xywh, width, height)
    found: tuple[int, int, int, int] = BoundingBox.from_coords(x, y, x + relative_width, y + relative_height).coords_in(
        frame_size=(width, height)
    )
    return found


def _export(detections: fiftyone.Detections, result: Result, folder: Path) -> dict[str, Any]:
    """FiftyOne's COCO export of one image; it writes run lengths for crowds only, else polygons, which are approximations."""
    for detection in detections.detections:
        detection["iscrowd"] = 1
    Image.new("RGB", (result.width, result.height)).save(folder / "made.png")
    exporter = fouc.COCODetectionDatasetExporter(export_dir=str(folder / "export"), classes=list(LABELS))
    with exporter:
        exporter.export_sample(str(folder / "made.png"), detections)
    exported: dict[str, Any] = json.loads((folder / "export" / "labels.json").read_text())
    return exported


def test_fields_of_a_hand_made_mask() -> None:
    (detection,) = to_detections(result_of(tiny_masks()[1:2])).detections
    assert detection.label == "cat"
    assert detection.confidence == 1
    np.testing.assert_allclose(detection.bounding_box, [2 / 7, 1 / 5, 3 / 7, 3 / 5], rtol=1e-15)
    np.testing.assert_array_equal(detection.mask, [[1, 1, 1], [1, 0, 1], [1, 1, 1]])


def test_an_image_without_instances_has_no_detections() -> None:
    assert to_detections(result_of(np.zeros((0, 4, 6), np.bool_))).detections == []


def test_an_instance_without_pixels_is_left_out() -> None:
    masks = np.zeros((2, 4, 6), np.bool_)
    masks[1, 2, 3] = True
    assert [d.label for d in to_detections(result_of(masks)).detections] == ["dog"]


def test_fiftyone_finds_the_pixels_of_every_box_again() -> None:
    """It truncates: a plain quotient such as 29 / 50 would come back as pixel 28."""
    rng = np.random.default_rng(9)
    for width, height in rng.integers(1, 6000, (300, 2)).tolist():
        left, top = rng.integers(0, width), rng.integers(0, height)
        box = (int(left), int(top), int(rng.integers(1, width - left + 1)), int(rng.integers(1, height - top + 1)))
        assert _box_again(box, width, height) == box


def test_fiftyone_finds_the_pixels_of_every_span_of_small_images_again() -> None:
    for size in range(1, 120):
        for start in range(size):
            for length in range(1, size - start + 1):
                assert _box_again((start, 0, length, 1), size, 1) == (start, 0, length, 1)


@MASKS
def test_masks_that_fiftyone_puts_into_the_image_are_ours_pixel_by_pixel(masks: NDArray[np.bool_]) -> None:
    detections = to_detections(result_of(masks))
    np.testing.assert_array_equal(_full_masks(detections, masks.shape[2], masks.shape[1]), masks)


@MASKS
def test_a_sample_keeps_masks_scores_and_boxes_when_it_is_stored_and_read(masks: NDArray[np.bool_]) -> None:
    """`to_dict` is what goes into the database."""
    sample = fiftyone.Sample(filepath="made.png", solo=to_detections(result_of(masks)))
    stored = fiftyone.Sample.from_dict(sample.to_dict()).solo
    assert [d.confidence for d in stored.detections] == [d.confidence for d in sample.solo.detections]
    assert [d.bounding_box for d in stored.detections] == [d.bounding_box for d in sample.solo.detections]
    np.testing.assert_array_equal(_full_masks(stored, masks.shape[2], masks.shape[1]), masks)


@MASKS
def test_masks_of_fiftyones_coco_export_are_ours_pixel_by_pixel(masks: NDArray[np.bool_], tmp_path: Path) -> None:
    result = result_of(masks)
    exported = _export(to_detections(result), result, tmp_path)["annotations"]
    for annotation, instance, mask in zip(exported, result.instances, masks, strict=True):
        runs = annotation["segmentation"]["counts"]
        pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(result.width, result.height).T
        np.testing.assert_array_equal(pixels, mask)
        assert annotation["score"] == instance.score
        np.testing.assert_allclose(annotation["bbox"], instance.box_xywh, atol=1e-9)


@MASKS
def test_masks_that_fiftyone_imports_from_its_export_are_ours(masks: NDArray[np.bool_], tmp_path: Path) -> None:
    result = result_of(masks)
    _export(to_detections(result), result, tmp_path)
    importer = fouc.COCODetectionDatasetImporter(
        dataset_dir=str(tmp_path / "export"), label_types="segmentations", include_id=False
    )
    with importer:
        ((_, _, imported),) = list(importer)
    assert [d.label for d in imported.detections] == [i.label for i in result.instances]
    for detection, instance, mask in zip(imported.detections, result.instances, masks, strict=True):
        left, top, width, height = instance.box_xywh
        np.testing.assert_array_equal(detection.mask, mask[top : top + height, left : left + width])


def test_the_person_of_the_demo_model_is_carried(url: str) -> None:
    with SoloClient(url) as client:
        result = client.segment(ASTRONAUT, score_threshold=0.3)
    (detection,) = to_detections(result).detections
    assert (detection.label, round(detection.confidence, 2)) == ("person", 0.65)
    np.testing.assert_array_equal(_full_masks(to_detections(result), result.width, result.height), result.masks())
