"""Label Studio itself, unchanged: it takes the server as an ML backend, and its predictions have the masks of `POST /segment`."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from conftest import ROOT
from label_studio_sdk.converter import brush
from PIL import Image
from processes import BUNDLE, free_port, label_studio, solo
from pycocotools import mask as coco_mask

TOKEN = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105 - of a Label Studio that lives as long as these tests
KEY = "0123456789abcdef0123456789abcdef"
LOW = 0.05


@dataclass(frozen=True)
class Studio:
    """Label Studio's API."""

    url: str

    def call(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        headers = {"Authorization": f"Token {TOKEN}"}
        response = requests.request(method, f"{self.url}{path}", headers=headers, timeout=120, **options)
        assert response.status_code == status, response.text
        return response.json()

    def project(self, config: str) -> int:
        return int(self.call("POST", "/api/projects", 201, json={"title": "Test", "label_config": config})["id"])

    def upload(self, project: int, *images: Path) -> None:
        for image in images:
            with image.open("rb") as file:
                self.call(
                    "POST", f"/api/projects/{project}/import", 201, files={"file": (image.name, file, "image/png")}
                )

    def connect(self, project: int, backend: str, key: str = "", status: int = 201) -> Any:
        auth = {"auth_method": "BASIC_AUTH", "basic_auth_user": "solo", "basic_auth_pass": key} if key else {}
        return self.call("POST", "/api/ml", status, json={"project": project, "url": backend, "title": "SOLO", **auth})

    def predict(self, project: int) -> list[dict[str, Any]]:
        """All tasks, after predictions were requested for them."""
        body = {"selectedItems": {"all": True, "excluded": []}}
        self.call("POST", f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", json=body)
        tasks = self.call("GET", f"/api/tasks?project={project}&fields=all")["tasks"]
        return sorted(tasks, key=lambda task: task["id"])


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with label_studio(tmp_path_factory.mktemp("studio"), "a@example.org", "a password", TOKEN) as url:
        yield Studio(url)


@pytest.fixture(scope="module")
def backend(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that requires a key, and may fetch Label Studio's own files."""
    folder = tmp_path_factory.mktemp("backend")
    (folder / "tokens").write_text(f"{studio.url}/ Token {TOKEN}\n")
    settings = {
        "SOLO_API_KEYS": f"studio:{KEY}",
        "SOLO_IMAGE_URLS": f"{studio.url}/",
        "SOLO_IMAGE_URLS_TOKEN_FILE": str(folder / "tokens"),
        "SOLO_LABEL_STUDIO_URL": studio.url,
    }
    with solo(folder, BUNDLE, **settings) as url:
        yield url


@pytest.fixture(scope="module")
def images(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    with Image.open(astronaut) as image:
        image.resize((120, 90)).save(folder / "a.png")
        image.resize((67, 101)).save(folder / "b.png")
    return sorted(folder.iterdir())


def config(backend: str, *kinds: str) -> str:
    headers = {"X-API-Key": KEY}
    classes = requests.get(f"{backend}/model", headers=headers, timeout=60).json()["classes"]
    labels = "".join(f'<Label value="{name}"/>' for name in classes)
    tags = [f'<{kind} name="{kind}" toName="image" model_score_threshold="{LOW}">{labels}</{kind}>' for kind in kinds]
    return f'<View><Image name="image" value="$image"/>{"".join(tags)}</View>'


def segmented(backend: str, image: Path) -> list[dict[str, Any]]:
    headers, query = {"X-API-Key": KEY}, {"score_threshold": LOW}
    response = requests.post(f"{backend}/segment", data=image.read_bytes(), params=query, headers=headers, timeout=60)
    return [instance for instance in response.json()["instances"] if instance["area"]]


def check_brushes(regions: list[dict[str, Any]], instances: list[dict[str, Any]]) -> None:
    """Masks pixel by pixel, read by Label Studio's own decoder."""
    assert len(instances) > 0
    assert [region["value"]["brushlabels"] for region in regions] == [[one["label"]] for one in instances]
    assert [region["score"] for region in regions] == [one["score"] for one in instances]
    for region, instance in zip(regions, instances, strict=True):
        height, width = instance["mask"]["size"]
        assert (region["original_height"], region["original_width"]) == (height, width)
        alpha = brush.decode_rle(region["value"]["rle"]).reshape(height, width, 4)[:, :, 3]
        mask = coco_mask.decode(instance["mask"])
        assert (alpha == 255 * mask).all()
        assert region["value"]["rle"] == brush.mask2rle(255 * mask)  # byte for byte what its own encoder writes


def test_uploaded_images_get_brushes_with_the_masks_of_segment(
    studio: Studio, backend: str, images: list[Path]
) -> None:
    project = studio.project(config(backend, "BrushLabels"))
    connected = studio.connect(project, f"{backend}/label-studio", KEY)
    assert connected["state"] in ("CO", "DI")  # it was asked for its health and its setup; the state follows
    studio.upload(project, *images)
    tasks = studio.predict(project)
    assert [task["data"]["image"].startswith("/data/upload/") for task in tasks] == [True, True]
    for task, image in zip(tasks, images, strict=True):
        (prediction,) = task["predictions"]
        check_brushes(prediction["result"], segmented(backend, image))
        assert prediction["model_version"].startswith("tiny-solo/")
    assert [len(task["predictions"]) for task in studio.predict(project)] == [
        1,
        1,
    ]  # it does not ask again for this version


def test_polygons_and_rectangles_are_taken_too(studio: Studio, backend: str, images: list[Path]) -> None:
    project = studio.project(config(backend, "PolygonLabels", "RectangleLabels"))
    studio.connect(project, f"{backend}/label-studio/tiny-solo", KEY)
    studio.upload(project, images[0])
    (prediction,) = studio.predict(project)[0]["predictions"]
    kinds = [region["type"] for region in prediction["result"]]
    assert kinds.count("rectanglelabels") == len(segmented(backend, images[0]))
    assert kinds.count("polygonlabels") >= kinds.count("rectanglelabels")


def test_a_task_whose_image_is_damaged_is_skipped_and_the_others_are_not(
    studio: Studio, backend: str, images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "damaged.png").write_bytes(images[0].read_bytes()[:500])
    project = studio.project(config(backend, "BrushLabels"))
    studio.connect(project, f"{backend}/label-studio", KEY)
    studio.upload(project, images[0], tmp_path / "damaged.png", images[1])
    assert [len(task["predictions"]) for task in studio.predict(project)] == [1, 0, 1]


def test_label_studio_says_so_where_the_key_is_wrong_or_missing(studio: Studio, backend: str) -> None:
    project = studio.project(config(backend, "BrushLabels"))
    for key in ("", "wrong-0123456789abcdef"):
        refused = studio.connect(project, f"{backend}/label-studio", key, status=400)
        assert "authentication parameters" in json.dumps(refused)


def test_label_studio_refuses_a_configuration_without_a_class_of_the_model(studio: Studio, backend: str) -> None:
    text = config(backend, "BrushLabels").replace('value="', 'value="other ').replace("other $", "$")
    refused = studio.connect(studio.project(text), f"{backend}/label-studio", KEY, status=400)
    assert "incompatible with the current labeling configuration" in json.dumps(refused)


def test_a_backend_is_accepted_while_its_models_are_loaded(
    studio: Studio, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that are compiled for the first time take much longer than the 3 s that Label Studio waits for `/setup`."""
    port = free_port()
    monkeypatch.setattr("processes._wait", lambda *_: None)
    with solo(tmp_path, BUNDLE, port=port, NUMBA_CACHE_DIR=str(tmp_path / "kernels")) as url:
        monkeypatch.undo()
        while True:
            try:
                ready = requests.get(f"{url}/readyz", timeout=60)
                break
            except requests.ConnectionError:
                pass
        assert (ready.status_code, ready.json()["reason"]) == (503, "warming")
        project = studio.project(config(backend, "BrushLabels"))
        assert studio.connect(project, f"{url}/label-studio")["id"]
        assert requests.get(f"{url}/readyz", timeout=60).status_code == 503  # still so


def test_the_example_prints_what_the_page_shows(studio: Studio, demo: str, astronaut: Path) -> None:
    script = ROOT / "examples" / "label_studio" / "connect.py"
    command = [sys.executable, script, studio.url, TOKEN, f"{demo}/label-studio", astronaut]
    printed = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "label-studio.md").read_text()
    line = re.compile(r"^demo-person/(\w+): Astronaut, score (\d\.\d\d)$", re.MULTILINE)
    (shown,), (real,) = line.findall(page), line.findall(printed)
    assert shown[0] == real[0]
    assert float(shown[1]) == pytest.approx(float(real[1]), abs=0.01)  # processors round differently


def test_any_mask_is_encoded_as_label_studio_encodes_it(noisy: str, images: list[Path]) -> None:
    uri = "data:image/png;base64," + base64.b64encode(images[1].read_bytes()).decode()
    classes = requests.get(f"{noisy}/model", timeout=60).json()["classes"]
    labels = "".join(f'<Label value="{name}"/>' for name in classes)
    tag = f'<BrushLabels name="b" toName="i" model_score_threshold="0">{labels}</BrushLabels>'
    text = f'<View><Image name="i" value="$i"/>{tag}</View>'
    body = {"tasks": [{"data": {"i": uri}}], "label_config": text}
    regions = requests.post(f"{noisy}/label-studio/predict", json=body, timeout=60).json()["results"][0]["result"]
    for region in regions:
        alpha = brush.decode_rle(region["value"]["rle"]).reshape(101, 67, 4)[:, :, 3]
        assert set(np.unique(alpha)) <= {0, 255}
        assert region["value"]["rle"] == brush.mask2rle(alpha)
