"""The examples run as they stand, and docs/tools.md shows them and what they print."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from cvat_cli_process import annotate
from fake_cvat import FakeCvat, serving
from PIL import Image
from solo_client import SoloClient
from support.paths import ASTRONAUT, IMAGES
from tools_page import ROOT, run_example, shown_output, shows_source

PHOTO = ASTRONAUT.relative_to(ROOT)


_ELSEWHERE = {"roboflow_sdk.py"}  # docs/roboflow.md, which tests/tools_server compares


@pytest.mark.parametrize("example", sorted({file.name for file in (ROOT / "examples").glob("*.py")} - _ELSEWHERE))
def test_the_page_shows_the_example_as_it_is(example: str) -> None:
    assert shows_source(example)


def test_supervision_draws_the_person(url: str, tmp_path: Path) -> None:
    drawn = tmp_path / "annotated.png"
    printed = run_example("supervision_annotate.py", url, PHOTO, drawn)
    assert printed.replace(str(drawn), drawn.name) == shown_output("supervision")
    changed = (np.asarray(Image.open(drawn)) != np.asarray(Image.open(ASTRONAUT))).any(2)
    with SoloClient(url) as client:
        mask = client.segment(ASTRONAUT, score_threshold=0.3).masks()[0]
    assert (changed & mask).sum() > 0.95 * mask.sum()


def test_cvat_gets_the_persons_mask(url: str, tmp_path: Path) -> None:
    function = ("--function-file", str(ROOT / "examples" / "cvat_function.py"), "-p", f"url=str:{url}")
    with serving(FakeCvat({PHOTO.name: ASTRONAUT.read_bytes()}, {"person": "mask"}, [(512, 512)])) as cvat:
        annotations = annotate(cvat, tmp_path, *function)
    names = {cvat.label_id(name): name for name in cvat.labels}
    lines = [
        f"frame {s['frame']}: {s['type']}, label {names[s['label_id']]}, score {s['score']:.2f}, source {s['source']}\n"
        for s in annotations["shapes"]
    ]
    assert "".join(lines) == shown_output("CVAT")


@pytest.fixture(scope="module")
def annotations_file(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO annotations whose truth is the model's own mask of the person."""
    with SoloClient(url) as client:
        (instance,) = client.segment(ASTRONAUT, score_threshold=0.3).instances
    truth = {
        "images": [{"id": 1, "file_name": ASTRONAUT.name, "width": 512, "height": 512}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": instance.area,
                "bbox": list(instance.box_xywh),
                "segmentation": instance.mask.to_coco(),
            }
        ],
    }
    file = tmp_path_factory.mktemp("truth") / "annotations.json"
    file.write_text(json.dumps(truth))
    return file


def test_pycocotools_computes_mask_ap(url: str, annotations_file: Path) -> None:
    printed = run_example("coco_eval.py", url, annotations_file, IMAGES)
    assert _ap(printed) == shown_output("pycocotools and faster-coco-eval")


def test_faster_coco_eval_takes_the_place_of_pycocotools(url: str, annotations_file: Path) -> None:
    setup = "import faster_coco_eval; faster_coco_eval.init_as_pycocotools()"
    printed = run_example("coco_eval.py", url, annotations_file, IMAGES, setup=setup)
    assert _ap(printed) == shown_output("pycocotools and faster-coco-eval")


def _ap(printed: str) -> str:
    """The three lines of average precision without a limit of size."""
    found = re.findall(r"^ (Average Precision .*area=   all \| maxDets=100 \] = .*)$", printed, re.MULTILINE)
    return "".join(f"{line}\n" for line in found)
