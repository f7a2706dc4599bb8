"""Mask AP: perfect results give 1, nothing gives 0, and annotations that do not fit are refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import encoded, picture
from pycocotools import mask as coco_mask
from solo_export.accuracy import AnnotationsError, mask_ap, read_annotations, segment_all
from solo_server.pipeline import Pipeline

ANNOTATIONS: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.png", "height": 20, "width": 30}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 5, "name": "traffic_light"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "area": 100, "bbox": [5, 5, 10, 10],
         "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]},
    ],
}  # fmt: skip


def _write(folder: Path, content: Any) -> Path:
    (folder / "annotations.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "annotations.json"


def test_the_very_mask_gives_full_ap_and_nothing_none(tmp_path: Path) -> None:
    truth = read_annotations(_write(tmp_path, ANNOTATIONS))
    mask = np.zeros((20, 30), np.uint8, order="F")
    mask[5:15, 5:15] = 1
    rle = coco_mask.encode(mask)
    segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
    result = {"image_id": 7, "category_id": 3, "score": 0.8, "segmentation": segmentation}
    assert mask_ap(truth, [result])["AP"] == pytest.approx(1.0)
    assert mask_ap(truth, [])["AP"] == 0.0


def test_results_name_annotated_categories(tmp_path: Path, solo_bundle: Path) -> None:
    truth = read_annotations(_write(tmp_path, ANNOTATIONS))
    (tmp_path / "a.png").write_bytes(encoded(picture(120, 150)))
    results = segment_all(Pipeline.open(solo_bundle, threads=1), truth, tmp_path)
    assert results
    assert {r["category_id"] for r in results} <= {1, 3, 5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "no COCO annotations"),
        ([], "no COCO annotations"),
        ({"images": [], "annotations": [], "categories": []}, "needs images, categories and annotations"),
        ({"annotations": [{"id": 1}]}, "no COCO annotations"),
    ],
)
def test_what_is_not_coco_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(AnnotationsError, match=message):
        read_annotations(_write(tmp_path, content))
    with pytest.raises(AnnotationsError, match="no COCO annotations"):
        read_annotations(tmp_path / "missing.json")


def test_classes_and_pictures_that_are_missing_are_named(tmp_path: Path, solo_bundle: Path) -> None:
    pipeline = Pipeline.open(solo_bundle, threads=1)
    fewer = ANNOTATIONS | {"categories": ANNOTATIONS["categories"][:2]}
    with pytest.raises(AnnotationsError, match="class 'traffic light' is not among the annotated cat, dog"):
        segment_all(pipeline, read_annotations(_write(tmp_path, fewer)), tmp_path)
    with pytest.raises(AnnotationsError, match=r"a\.png"):
        segment_all(pipeline, read_annotations(_write(tmp_path, ANNOTATIONS)), tmp_path)
