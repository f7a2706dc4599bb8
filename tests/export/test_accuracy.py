"""Mask AP: perfect results give 1, nothing gives 0, and annotations that do not fit are refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from solo_export.accuracy import (
    AnnotationsError,
    annotated_images,
    category_ids,
    mask_ap,
    read_annotations,
    segment_all,
)
from solo_server.pipeline.pipeline import Pipeline
from support.images import encoded, smooth_image

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


def test_the_true_mask_gives_full_ap_and_no_results_give_zero(tmp_path: Path) -> None:
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
    (tmp_path / "a.png").write_bytes(encoded(smooth_image(120, 150)))
    results = segment_all(Pipeline.open(solo_bundle, threads=1), truth, tmp_path)
    assert results
    assert {r["category_id"] for r in results} <= {1, 3, 5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "not COCO annotations"),
        ([], "not COCO annotations"),
        ({"images": [], "annotations": [], "categories": []}, "needs images, categories and annotations"),
        ({"annotations": [{"id": 1}]}, "not COCO annotations"),
        (ANNOTATIONS | {"images": [{"id": 7}]}, "not COCO annotations.*file_name"),
        (ANNOTATIONS | {"images": [{"id": 7, "file_name": 7}]}, "not COCO annotations.*not a string"),
        (ANNOTATIONS | {"categories": [{"id": 3}]}, "not COCO annotations.*name"),
    ],
)
def test_other_files_are_refused_as_annotations(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(AnnotationsError, match=message):
        read_annotations(_write(tmp_path, content))
    with pytest.raises(AnnotationsError, match="not COCO annotations"):
        read_annotations(tmp_path / "missing.json")


def test_classes_and_images_that_are_missing_are_named(tmp_path: Path, solo_bundle: Path) -> None:
    pipeline = Pipeline.open(solo_bundle, threads=1)
    fewer = ANNOTATIONS | {"categories": ANNOTATIONS["categories"][:2]}
    with pytest.raises(AnnotationsError, match="class 'traffic light' is not among the annotated cat, dog"):
        segment_all(pipeline, read_annotations(_write(tmp_path, fewer)), tmp_path)
    with pytest.raises(AnnotationsError, match=r"a\.png"):
        segment_all(pipeline, read_annotations(_write(tmp_path, ANNOTATIONS)), tmp_path)


def _annotated(folder: Path, listed: str, there: str) -> Path:
    """Annotations of the images `listed`, each with one object, and a folder with those that are `there`."""
    images = [{"id": i, "file_name": f"{name}.png", "height": 20, "width": 30} for i, name in enumerate(listed, 1)]
    objects = [ANNOTATIONS["annotations"][0] | {"id": i, "image_id": i} for i in range(1, len(listed) + 1)]
    for name in there:
        (folder / f"{name}.png").write_bytes(encoded(smooth_image(20, 30)))
    return _write(folder, ANNOTATIONS | {"images": images, "annotations": objects})


@pytest.mark.parametrize(
    ("listed", "there", "common"), [("abc", "b", "b"), ("b", "abc", "b"), ("abc", "bcd", "bc"), ("ab", "ab", "ab")]
)
def test_images_are_those_both_annotated_and_in_the_folder(
    tmp_path: Path, listed: str, there: str, common: str
) -> None:
    found = annotated_images(_annotated(tmp_path, listed, there), tmp_path)
    assert [image["file_name"] for image in found.truth.imgs.values()] == [f"{name}.png" for name in common]
    assert {annotation["image_id"] for annotation in found.truth.anns.values()} == set(found.truth.imgs)
    assert (found.number, found.listed, found.folder) == (len(common), len(listed), tmp_path)


def test_a_mask_that_is_right_gives_full_ap_on_a_subset(tmp_path: Path) -> None:
    """Images that are not in the folder do not count as missed."""
    truth = annotated_images(_annotated(tmp_path, "abc", "b"), tmp_path).truth
    (annotation,) = truth.anns.values()
    rle = truth.annToRLE(annotation)
    segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
    result = {"image_id": 2, "category_id": 3, "score": 0.8, "segmentation": segmentation}
    assert mask_ap(truth, [result])["AP"] == pytest.approx(1.0)


def test_a_damaged_image_is_reported_and_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = _annotated(tmp_path, "ab", "ab")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    assert list(annotated_images(annotations, tmp_path).truth.imgs) == [2]
    assert "skipped a.png: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("listed", "there", "changes", "message"),
    [
        ("ab", "c", {}, r"annotations\.json: none of its 2 images is in .* \(the first is a\.png\)"),
        ("ab", "b", {"image_id": 1}, "has no object on the 1 of its images"),
        ("ab", "b", {"iscrowd": 1}, "has no object on the 1 of its images"),
        ("ab", "b", {"segmentation": []}, "annotation 2 has no segmentation; mask AP needs it"),
        ("ab", "b", {"area": None}, "annotation 2 has no area; mask AP needs it"),
    ],
)
def test_annotations_that_do_not_match_the_folder_are_refused(
    tmp_path: Path, listed: str, there: str, changes: dict[str, Any], message: str
) -> None:
    path = _annotated(tmp_path, listed, there)
    content = json.loads(path.read_text())
    content["annotations"][-1] |= changes
    with pytest.raises(AnnotationsError, match=message):
        annotated_images(_write(tmp_path, content), tmp_path)


def test_classes_are_matched_by_name_and_an_underscore_may_stand_for_a_space(tmp_path: Path) -> None:
    truth = read_annotations(_write(tmp_path, ANNOTATIONS))
    assert category_ids(truth, ("dog", "traffic light", "cat")) == [3, 5, 1]
    assert category_ids(truth, ("traffic_light",)) == [5]


def test_names_that_differ_by_an_underscore_only_are_told_apart(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "a_b"}, {"id": 2, "name": "a b"}, {"id": 3, "name": "c_d e"}]
    truth = read_annotations(_write(tmp_path, ANNOTATIONS | {"categories": categories}))
    assert category_ids(truth, ("a b", "a_b", "c d_e")) == [2, 1, 3]
    with pytest.raises(AnnotationsError, match="class 'x_y' is not among the annotated a b, a_b, c_d e"):
        category_ids(truth, ("x_y",))
