"""Roboflow's own client, unchanged: its masks are those of `POST /segment`, pixel by pixel, however it is told to ask."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests
import supervision as sv
from conftest import ROOT
from inference_sdk import InferenceConfiguration, InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError
from PIL import Image
from processes import solo
from pycocotools import mask as coco_mask

MODEL = "tiny-solo"
KEY = "0123456789abcdef0123456789abcdef"
LOW = 0.05


def configured(url: str, key: str | None = None, transport: str = "legacy", **options: Any) -> InferenceHTTPClient:
    client = InferenceHTTPClient(api_url=f"{url}/roboflow", api_key=key)
    options = {"confidence_threshold": LOW, **options}
    return client.configure(InferenceConfiguration(api_key_transport=transport, **options))


def segmented(url: str, image: bytes, **query: Any) -> list[dict[str, Any]]:
    answer = requests.post(f"{url}/segment", data=image, params={"score_threshold": LOW, **query}, timeout=60)
    return list(answer.json()["instances"])


def masks_of(instances: list[dict[str, Any]]) -> np.ndarray:
    return np.array([coco_mask.decode(instance["mask"]) for instance in instances], bool)


def check_equal(answer: dict[str, Any], instances: list[dict[str, Any]]) -> None:
    """What `supervision` reads of the answer equals the instances: masks, boxes, classes and scores."""
    detections = sv.Detections.from_inference(answer)
    assert len(instances) > 0
    assert detections.mask is not None
    assert (detections.mask == masks_of(instances)).all()
    boxes = np.array([instance["box_xywh"] for instance in instances], float)
    assert detections.xyxy.tolist() == np.c_[boxes[:, :2], boxes[:, :2] + boxes[:, 2:]].tolist()
    assert detections.class_id.tolist() == [instance["class_id"] for instance in instances]
    assert detections["class_name"].tolist() == [instance["label"] for instance in instances]
    assert detections.confidence.tolist() == [instance["score"] for instance in instances]


@pytest.fixture(scope="module")
def images(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of three sizes and two formats."""
    folder = tmp_path_factory.mktemp("images")
    with Image.open(astronaut) as image:
        image.resize((200, 150)).save(folder / "a.png")
        image.resize((97, 181)).save(folder / "b.jpg")
        image.crop((0, 0, 300, 300)).save(folder / "c.png")
    return sorted(folder.iterdir())


def test_the_masks_have_holes_and_parts_which_a_polygon_would_lose(noisy: str, images: list[Path]) -> None:
    answer = configured(noisy).infer(str(images[0]), model_id=MODEL)
    instances = segmented(noisy, images[0].read_bytes())
    check_equal(answer, instances)
    from_polygons = sv.Detections.from_inference(
        {**answer, "predictions": [{k: v for k, v in one.items() if k != "rle"} for one in answer["predictions"]]}
    )
    assert from_polygons.mask is not None
    assert (from_polygons.mask != masks_of(instances)).any()


def test_registered_models_are_found_and_one_of_them_is_selected(noisy: str, images: list[Path]) -> None:
    client = configured(noisy)
    version = requests.get(f"{noisy}/model", timeout=60).json()["version"]
    names = [model.model_id for model in client.list_loaded_models().models]
    assert names == [MODEL, f"{MODEL}/{version}"]
    assert client.get_model_description(names[1]).task_type == "instance-segmentation"
    assert [model.model_id for model in client.load_model(MODEL).models] == names
    for name in names:
        client.select_model(name)
        check_equal(client.infer(str(images[1])), segmented(noisy, images[1].read_bytes()))


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_lists_of_images_are_answered_in_their_order_at_any_batch_size(
    noisy: str, images: list[Path], batch: int
) -> None:
    client = configured(noisy, max_batch_size=batch, max_concurrent_requests=2)
    answers = client.infer([str(path) for path in images], model_id=MODEL)
    assert len(answers) == len(images)
    for answer, path in zip(answers, images, strict=True):
        check_equal(answer, segmented(noisy, path.read_bytes()))


def test_arrays_and_pillow_images_are_sent_as_the_client_encodes_them(noisy: str, images: list[Path]) -> None:
    bgr = cv2.imread(str(images[0]))
    _, jpeg = cv2.imencode(".jpg", bgr)
    check_equal(configured(noisy).infer(bgr, model_id=MODEL), segmented(noisy, jpeg.tobytes()))
    with Image.open(images[0]) as image:
        answer = configured(noisy).infer(image, model_id=MODEL)
    assert answer["image"] == {"width": 200, "height": 150}


def test_the_client_waits_without_blocking(noisy: str, images: list[Path]) -> None:
    client = configured(noisy, max_concurrent_requests=3)
    answers = asyncio.run(client.infer_async([str(path) for path in images], model_id=MODEL))
    for answer, path in zip(answers, images, strict=True):
        check_equal(answer, segmented(noisy, path.read_bytes()))


def test_version_0_of_the_api_gives_the_same(noisy: str, images: list[Path]) -> None:
    version = requests.get(f"{noisy}/model", timeout=60).json()["version"]
    client = configured(noisy, KEY, max_detections=5).select_api_v0()
    answers = [client.infer(str(images[0]), model_id=f"{MODEL}/{version}")]
    answers.append(asyncio.run(client.infer_async(str(images[0]), model_id=f"{MODEL}/{version}")))
    for answer in answers:
        check_equal(answer, segmented(noisy, images[0].read_bytes(), max_instances=5))


def test_options_reach_the_model(noisy: str, images: list[Path]) -> None:
    image = images[0].read_bytes()
    label = segmented(noisy, image)[0]["label"]
    client = configured(noisy, class_filter=[label], max_detections=3, iou_threshold=0.5, response_mask_format="rle")
    answer = client.infer(str(images[0]), model_id=MODEL)
    check_equal(answer, segmented(noisy, image, classes=label, max_instances=3))
    assert all("points" not in one for one in answer["predictions"])


def test_images_that_the_client_shrinks_come_back_in_their_own_size(demo: str, astronaut: Path, tmp_path: Path) -> None:
    with Image.open(astronaut) as image:
        image.resize((1024, 1024)).save(tmp_path / "large.jpg")
    client = configured(demo, client_downsizing_disabled=False, confidence_threshold=0.3)
    answer = client.infer(str(tmp_path / "large.jpg"), model_id="demo-person")
    detections = sv.Detections.from_inference(answer)
    assert answer["image"] == {"width": 1024, "height": 1024}
    assert detections.mask.shape == (1, 1024, 1024)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("guarded")
    with solo(folder, SOLO_API_KEYS=f"alice:{KEY}", SOLO_LOG_LEVEL="debug") as url:
        yield url, folder


@pytest.mark.parametrize("transport", ["legacy", "both", "header"])
def test_the_key_is_accepted_wherever_the_client_sends_it_and_is_not_logged(
    guarded: tuple[str, Path], astronaut: Path, transport: str
) -> None:
    url, folder = guarded
    client = configured(url, KEY, transport)
    version = client.list_loaded_models().models[1].model_id
    assert client.infer(str(astronaut), model_id="demo-person")["predictions"]
    assert asyncio.run(client.infer_async(str(astronaut), model_id="demo-person"))["predictions"]
    with client.use_api_v0():
        assert client.infer(str(astronaut), model_id=version)["predictions"]
    log = "".join(path.read_text() for path in folder.glob("*.log"))
    assert "/roboflow/infer/instance_segmentation" in log
    assert KEY not in log


@pytest.mark.parametrize("transport", ["legacy", "both", "header"])
@pytest.mark.parametrize("key", [None, "wrong-0123456789abcdef"])
def test_without_a_known_key_the_client_raises(
    guarded: tuple[str, Path], astronaut: Path, transport: str, key: str | None
) -> None:
    client = configured(guarded[0], key, transport)
    with pytest.raises(HTTPCallErrorError) as refused:
        client.infer(str(astronaut), model_id="demo-person")
    assert refused.value.status_code == 401


def test_the_client_shows_the_reason_of_a_refusal(demo: str, astronaut: Path) -> None:
    client = configured(demo)
    with pytest.raises(HTTPCallErrorError) as unknown:
        client.infer(str(astronaut), model_id="nobody")
    assert (unknown.value.status_code, "nobody" in unknown.value.api_message) == (404, True)
    with pytest.raises(HTTPCallErrorError) as damaged:
        client.infer(str(ROOT / "README.md"), model_id="demo-person")
    assert damaged.value.status_code == 415
    assert damaged.value.api_message.startswith("image: ")


def test_the_example_prints_what_the_page_shows(demo: str, astronaut: Path) -> None:
    command = [sys.executable, ROOT / "examples" / "roboflow_sdk.py", f"{demo}/roboflow", astronaut]
    printed = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "roboflow.md").read_text()
    line = re.compile(r"^person (\d\.\d\d): (\d+) pixels within \[(\d+), (\d+), (\d+), (\d+)\]$", re.MULTILINE)
    (shown,), (real,) = line.findall(page), line.findall(printed)
    assert float(shown[0]) == pytest.approx(float(real[0]), abs=0.01)  # processors round differently
    assert int(shown[1]) == pytest.approx(int(real[1]), rel=0.01)
    assert list(map(int, shown[2:])) == pytest.approx(list(map(int, real[2:])), abs=2)
