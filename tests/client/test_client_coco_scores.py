"""COCO's own evaluation of what `solo segment --format coco` writes: masks that are the ground truth score 1.0."""

from __future__ import annotations

import argparse
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from solo_client import segment
from solo_models.coco import COCO_CLASSES

IDS_OF_COCO = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
CHOSEN = (0, 9, 11, 60, 79)  # person, traffic light, stop sign, dining table, toothbrush: before and behind the gaps
HW = (200, 240)


def _rle(position: int) -> dict[str, Any]:
    """A rectangle that does not overlap those of other positions."""
    mask = np.zeros(HW, np.uint8, order="F")
    mask[10:170, 10 + 46 * position : 50 + 46 * position] = 1
    encoded = coco_mask.encode(mask)
    return {"size": list(HW), "counts": encoded["counts"].decode()}


class PerfectModel:
    """Replaces `solo_server.commands.local`: returns the ground truth."""

    max_concurrency = 2

    def __init__(self, class_names: list[str]) -> None:
        self.class_names = class_names

    def open_local(self, bundle: Path | None, engine: str, *, several: bool) -> PerfectModel:
        return self

    def segment(self, body: bytes, query: dict[str, str]) -> dict[str, Any]:
        instances = [
            {
                "label": self.class_names[class_id],
                "class_id": class_id,
                "score": 0.9,
                "box_xywh": [10 + 46 * position, 10, 40, 160],
                "area": 6400,
                "mask": _rle(position),
            }
            for position, class_id in enumerate(CHOSEN)
        ]
        model = {"name": "perfect", "version": "1"}
        image = {"width": HW[1], "height": HW[0]}
        return {"image": image, "model": model, "timings_ms": {"total": 1.0}, "instances": instances}


def _average_precision(truth: Path, results: Path) -> float:
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(str(results)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _truth(folder: Path, names: list[str], ids: list[int]) -> Path:
    """Annotations of two images. names, ids: of the classes, in the order of `class_id`; the file lists them in another order."""
    images = [
        {"id": 7, "file_name": "b1.jpg", "height": HW[0], "width": HW[1]},
        {"id": 31, "file_name": "a1.jpg", "height": HW[0], "width": HW[1]},
    ]
    annotations = [
        {
            **{"image_id": image["id"], "category_id": ids[class_id], "iscrowd": 0, "area": 6400},
            **{"bbox": [10 + 46 * position, 10, 40, 160], "segmentation": _rle(position)},
        }
        for image in images
        for position, class_id in enumerate(CHOSEN)
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    categories = [{"id": number, "name": name} for name, number in sorted(zip(names, ids, strict=True))]
    file = folder / "truth.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


@pytest.mark.parametrize(
    ("class_names", "names_of_file", "ids", "words"),
    [
        (list(COCO_CLASSES), list(COCO_CLASSES), IDS_OF_COCO, []),
        ([name.replace(" ", "_") for name in COCO_CLASSES], list(COCO_CLASSES), IDS_OF_COCO, []),
        (list(COCO_CLASSES), list(COCO_CLASSES), IDS_OF_COCO, ["--categories", "truth.json"]),
        (
            [f"part_{number}" for number in range(80)],
            [f"part_{number}" for number in range(80)],
            [1000 - 3 * number for number in range(80)],
            ["--categories", "truth.json"],
        ),
    ],
    ids=["coco", "mmdet's names of coco", "coco from its file", "names of our own"],
)
def test_masks_that_are_the_ground_truth_score_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    class_names: list[str],
    names_of_file: list[str],
    ids: list[int],
    words: list[str],
) -> None:
    module = ModuleType("solo_server.commands.local")
    module.open_local = PerfectModel(class_names).open_local  # type: ignore[attr-defined]  # a hand-made stand-in
    monkeypatch.setitem(sys.modules, "solo_server", ModuleType("solo_server"))
    monkeypatch.setitem(sys.modules, "solo_server.commands.local", module)
    monkeypatch.chdir(tmp_path)
    truth = _truth(tmp_path, names_of_file, ids)
    for name in ("a1.jpg", "b1.jpg"):
        Path(name).touch()
    parser = argparse.ArgumentParser()
    segment.add_arguments(parser)
    arguments = [".", "--format", "coco", "--image-ids", "truth.json", "-o", "results.json", *words]
    assert segment.run(parser.parse_args(arguments)) == 0
    assert _average_precision(truth, tmp_path / "results.json") == pytest.approx(1.0)
