"""What `solo_results.formats` writes, read by LabelMe and supervision, unchanged.

Both fill the pixels that an outline touches as well, and so does OpenCV: their masks have ours in them, and reach
one pixel further.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import supervision
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from solo_results.formats import Classes, Context, NamedResult, open_format
from support.results import NAMES, named

SIZE = (120, 160)
LABELME = """
import json, sys
import labelme
from labelme._label_file import read_label_file
from labelme.utils.shape import shape_to_mask
found = []
for file in sys.argv[1:]:
    read = read_label_file(file)
    found.append([[one["label"], one["group_id"], one["other_data"]["score"],
                   shape_to_mask((120, 160), one["points"], one["shape_type"]).tolist()] for one in read.shapes])
print(json.dumps(found))
"""

Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def images() -> list[NamedResult]:
    return [named(1, "1.png", size=SIZE), named(2, "2.png", size=SIZE, count=9), named(3, "3.png", size=SIZE, count=0)]


def written(name: str, images: Sequence[NamedResult], folder: Path) -> Path:
    """A folder with the images, black, and what the format writes."""
    for image in images:
        Image.new("RGB", SIZE[::-1]).save(folder / image.file)
    for file in open_format(name).write(images, Context(Classes(NAMES))):
        (folder / (file.name or "all.json")).write_bytes(file.content)
    return folder


def check_wider(theirs: Mask, ours: Mask) -> None:
    """All of our pixels, and none that has no neighbour of ours."""
    near = np.pad(ours, 1)
    neighbours = [near[y : y + SIZE[0], x : x + SIZE[1]] for y in range(3) for x in range(3)]
    assert (theirs | ~ours).all()
    assert not (theirs & ~np.any(neighbours, axis=0)).any()


def test_labelme_reads_labels_groups_scores_and_masks(images: list[NamedResult], tmp_path: Path) -> None:
    folder = written("labelme", images, tmp_path)
    files = [str((folder / image.file).with_suffix(".json")) for image in images]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LABELME, *files], capture_output=True, text=True, check=True
    )
    for image, shapes in zip(images, json.loads(done.stdout), strict=True):
        instances = iter(one for one in image.result.instances if one.area)
        groups: list[tuple[str, float, Mask]] = []
        last = None
        for label, group, score, mask in shapes:
            if group is not None and group == last:
                groups[-1] = (label, score, groups[-1][2] | np.array(mask))
            else:
                groups.append((label, score, np.array(mask)))
            last = group
        for (label, score, mask), instance in zip(groups, instances, strict=True):
            assert (label, score) == (instance.label, instance.score)
            check_wider(mask, instance.mask_array())


def test_supervision_reads_yolo_with_classes_and_masks(images: list[NamedResult], tmp_path: Path) -> None:
    folder = written("yolo", images, tmp_path)
    dataset = supervision.DetectionDataset.from_yolo(
        str(folder), str(folder), str(folder / "data.yaml"), force_masks=True
    )
    assert dataset.classes == list(NAMES)
    assert len(dataset) == 3
    for path, _, detections in dataset:
        image = next(one for one in images if one.file == Path(path).name)
        instances = [one for one in image.result.instances if one.area]
        assert len(detections) == len(instances)
        for number, instance in enumerate(instances):
            assert detections.class_id is not None
            assert detections.mask is not None
            assert detections.class_id[number] == instance.class_id
            check_wider(np.asarray(detections.mask[number]), instance.mask_array())


def test_supervision_and_pycocotools_read_the_annotations(images: list[NamedResult], tmp_path: Path) -> None:
    folder = written("coco-annotations", images, tmp_path)
    dataset = supervision.DetectionDataset.from_coco(str(folder), str(folder / "all.json"), force_masks=True)
    assert sorted(dataset.classes) == sorted(NAMES)
    counts = {Path(path).name: len(detections) for path, _, detections in dataset}
    assert counts == {image.file: len(image.result.instances) for image in images}
    loaded = COCO(str(folder / "all.json"))
    for entry, instance in zip(loaded.imgToAnns[2], images[1].result.instances, strict=True):
        np.testing.assert_array_equal(loaded.annToMask(entry).astype(np.bool_), instance.mask_array())


def test_what_supervision_writes_as_yolo_is_read_back(images: list[NamedResult], tmp_path: Path) -> None:
    folder = written("yolo", images[:2], tmp_path)
    dataset = supervision.DetectionDataset.from_yolo(
        str(folder), str(folder), str(folder / "data.yaml"), force_masks=True
    )
    dataset.as_yolo(annotations_directory_path=str(tmp_path / "theirs"))

    class Sizes:
        def size(self, file: str) -> tuple[int, int] | None:
            return SIZE

        def full_name(self, file: str) -> str | None:
            return None

        def numbered(self, number: int) -> str | None:
            return None

    for image in images[:2]:
        text = (tmp_path / "theirs" / image.file).with_suffix(".txt")
        (found,) = open_format("yolo").read(text.name, text.read_bytes(), Context(Classes(NAMES), Sizes()))
        assert len(found.result.instances) >= 1
        together, expected = np.any(found.result.masks(), axis=0), np.any(image.result.masks(), axis=0)
        assert (together & expected).sum() > 0.9 * (together | expected).sum()
