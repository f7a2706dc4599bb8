"""Our COCO results with pycocotools and faster-coco-eval: masks are read as they are, and both compute the same AP."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import faster_coco_eval
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import pycocotools.mask
import pytest
from made_results import LABELS, box_of, random_masks, result_of, tiny_masks
from numpy.typing import NDArray
from solo_client import CocoResult, Result, SoloClient
from solo_results.rle import encode_rle
from support.images import encoded, smooth_image

IDS = dict(zip(LABELS, (17, 18, 10), strict=True))
"""COCO's own ids of the labels, which `solo segment` writes where all labels are COCO's."""
CATEGORIES = [{"id": number, "name": name} for name, number in IDS.items()]
IMAGES_HW = {1: (60, 80), 2: (97, 131), 7: (128, 64)}
STATS = 12


def _annotation(number: int, image_id: int, category_id: int, mask: NDArray[np.bool_], is_crowd: bool = False) -> Any:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "iscrowd": int(is_crowd),
        "area": int(mask.sum()),
        "bbox": list(box_of(mask)),
        "segmentation": {"size": list(mask.shape), "counts": encode_rle(mask)},
    }


def _truth(results: dict[int, Result]) -> dict[str, Any]:
    """Made of results: some masks as they are, some moved by a few pixels, some left out, some crowds."""
    annotations = []
    for image_id, result in results.items():
        for number, instance in enumerate(result.instances):
            mask = np.roll(instance.mask_array(), number % 5, axis=number % 2)
            if number % 4 and mask.any():
                annotations.append(
                    _annotation(len(annotations) + 1, image_id, IDS[instance.label], mask, number % 11 == 0)
                )
    images = [{"id": i, "file_name": f"{i}.png", "height": r.height, "width": r.width} for i, r in results.items()]
    return {"images": images, "categories": CATEGORIES, "annotations": annotations}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for image_id, hw in IMAGES_HW.items():
        (folder / f"{image_id}.png").write_bytes(encoded(smooth_image(*hw, seed=image_id)))
    return folder


@pytest.fixture(scope="module")
def results(url: str, folder: Path) -> dict[int, Result]:
    """Of a network with random weights, which finds instances of every shape."""
    with SoloClient(url, model="random") as client:
        return {image_id: client.segment(folder / f"{image_id}.png") for image_id in IMAGES_HW}


@pytest.fixture(scope="module")
def results_file(url: str, folder: Path) -> Path:
    """What `solo segment --format coco` writes."""
    file = folder / "results.json"
    segment = [
        "segment",
        str(folder / "*.png"),
        "--url",
        url,
        "--model-name",
        "random",
        "--format",
        "coco",
        "-o",
        str(file),
    ]
    subprocess.run([sys.executable, "-m", "solo_models.cli", *segment], check=True, capture_output=True)
    return file


def _truth_file(folder: Path, truth: dict[str, Any]) -> str:
    file = folder / "truth.json"
    file.write_text(json.dumps(truth))
    return str(file)


def _pycocotools(truth: str, results: Any) -> tuple[Any, NDArray[np.float64]]:
    annotations = pycocotools.coco.COCO(truth)
    loaded = annotations.loadRes(results)
    evaluation = pycocotools.cocoeval.COCOeval(annotations, loaded, "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return loaded, np.asarray(evaluation.stats)


def _faster_coco_eval(truth: str, results: Any) -> tuple[Any, NDArray[np.float64]]:
    annotations = faster_coco_eval.COCO(truth)
    loaded = annotations.loadRes(results)
    evaluation = faster_coco_eval.COCOeval_faster(annotations, loaded, "segm", extra_calc=False)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return loaded, np.asarray(evaluation.stats)


READERS = pytest.mark.parametrize("read", [_pycocotools, _faster_coco_eval])


@READERS
@pytest.mark.parametrize("masks", [tiny_masks(), random_masks(30, (61, 83), seed=6)], ids=["tiny", "random"])
def test_masks_of_to_coco_are_ours_pixel_by_pixel(read: Any, masks: NDArray[np.bool_], tmp_path: Path) -> None:
    result = result_of(masks)
    loaded, _ = read(_truth_file(tmp_path, _truth({3: result})), result.to_coco(3, IDS))
    for annotation, mask in zip(loaded.loadAnns(loaded.getAnnIds()), masks, strict=True):
        np.testing.assert_array_equal(loaded.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum()
        assert tuple(annotation["bbox"]) == box_of(mask)


@READERS
def test_the_file_of_solo_segment_loads_with_the_masks_of_the_client(
    read: Any, results: dict[int, Result], results_file: Path, tmp_path: Path
) -> None:
    loaded, _ = read(_truth_file(tmp_path, _truth(results)), str(results_file))
    for image_id, result in results.items():
        annotations = loaded.loadAnns(loaded.getAnnIds(imgIds=[image_id]))
        assert [a["category_id"] for a in annotations] == [IDS[i.label] for i in result.instances]
        assert [a["score"] for a in annotations] == [i.score for i in result.instances]
        np.testing.assert_array_equal([loaded.annToMask(a) for a in annotations], result.masks())


def test_both_compute_the_same_ap_of_a_made_up_set(results: dict[int, Result], tmp_path: Path) -> None:
    truth = _truth_file(tmp_path, _truth(results))
    entries: list[CocoResult] = [entry for i, result in results.items() for entry in result.to_coco(i, IDS)]
    _, slow = _pycocotools(truth, [dict(entry) for entry in entries])
    _, fast = _faster_coco_eval(truth, [dict(entry) for entry in entries])
    np.testing.assert_allclose(fast[:STATS], slow[:STATS], rtol=0, atol=1e-12)
    assert 0.2 < slow[0] < 0.95
    assert all(value > 0 for value in slow[[1, 2, 3, 4]])  # AP50, AP75, small, medium


def test_the_file_of_solo_segment_gets_the_same_ap_as_to_coco(
    results: dict[int, Result], results_file: Path, tmp_path: Path
) -> None:
    truth = _truth_file(tmp_path, _truth(results))
    entries = [dict(entry) for i, result in results.items() for entry in result.to_coco(i, IDS)]
    np.testing.assert_array_equal(_pycocotools(truth, str(results_file))[1], _pycocotools(truth, entries)[1])


def test_perfect_results_have_ap_1(tmp_path: Path) -> None:
    result = result_of(random_masks(12, (40, 50), seed=7))
    truth = _truth({1: result})
    truth["annotations"] = [
        _annotation(n, 1, IDS[i.label], i.mask_array()) for n, i in enumerate(result.instances, start=1)
    ]
    for read in (_pycocotools, _faster_coco_eval):
        assert read(_truth_file(tmp_path, truth), result.to_coco(1, IDS))[1][0] == pytest.approx(1, abs=1e-12)
