"""The container image `cpu` with `SOLO_MODELS=/models` and a folder mounted there, as in docs/container.md."""

import os
import shutil
import signal
from pathlib import Path

import httpx
import pytest
from image_builder import ROOT, Image
from server_calls import ended, free_port, serving, until
from solo_models.bundle import write_bundle
from solo_models.demo import demo_bundle
from support.networks import bundle_content, tiny_network

PHOTOGRAPH = (ROOT / "tests/images/astronaut.jpg").read_bytes()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with one model, `tiny`."""
    write_bundle(tmp_path / "tiny", bundle_content(tiny_network("solo")))
    tmp_path.chmod(0o755)
    return tmp_path


def add_damaged(models: Path) -> None:
    """Add a damaged model, `people`; it appears atomically, by a rename."""
    hidden = shutil.copytree(demo_bundle(), models / ".coming")
    size_bytes = (hidden / "masks.onnx").stat().st_size
    (hidden / "masks.onnx").write_bytes(bytes(size_bytes))
    hidden.rename(models / "people")


def test_every_model_of_the_folder_is_served_and_the_demo_is_not(cpu: Image, models: Path) -> None:
    shutil.copytree(models / "tiny", models / "other")
    with serving(cpu, mounts={"/models": models}, SOLO_MODELS="/models") as (container, url, _):
        listed = httpx.get(f"{url}/models").json()["models"]
        answer = httpx.post(f"{url}/models/tiny/segment", content=PHOTOGRAPH, timeout=60)
        assert container.stop() == 0
    assert [(model["name"], model["state"]) for model in listed] == [("other", "ready"), ("tiny", "ready")]
    assert answer.raise_for_status().json()["model"]["name"] == "tiny"


def test_a_damaged_model_stops_the_start_with_one_line_that_names_it(cpu: Image, models: Path) -> None:
    add_damaged(models)
    status, lines = ended(cpu, mounts={"/models": models}, SOLO_MODELS="/models", SOLO_PORT=str(free_port()))
    assert status == 2
    (refusal,) = [line for line in lines if line.startswith("solo serve: ")]
    assert refusal.startswith("solo serve: /models/people: masks.onnx: sha256 differs")
    assert not any("Traceback" in line for line in lines)


def test_a_damaged_model_added_later_is_reported_and_the_others_are_served(cpu: Image, models: Path) -> None:
    with serving(cpu, mounts={"/models": models}, SOLO_MODELS="/models") as (container, url, _):
        add_damaged(models)
        os.kill(container.pid, signal.SIGHUP)
        until(lambda: any("not loaded" in line for line in container.log_lines), container)
        states = {model["name"]: model["state"] for model in httpx.get(f"{url}/models").json()["models"]}
        assert httpx.get(f"{url}/readyz").status_code == 200
        answer = httpx.post(f"{url}/models/tiny/segment", content=PHOTOGRAPH, timeout=60)
        assert container.stop() == 0
    assert states == {"people": "failed", "tiny": "ready"}
    assert answer.status_code == 200
    (line,) = [line for line in container.log_lines if "not loaded" in line]
    assert "people" in line
    assert "masks.onnx: sha256 differs" in line


def test_a_folder_without_models_and_one_that_is_not_mounted_stop_the_start(cpu: Image, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for mounts, line in (
        ({"/models": tmp_path}, "SOLO_MODELS: /models holds no bundle; solo export writes them"),
        ({}, "SOLO_MODELS: /models is not a folder"),
    ):
        status, lines = ended(cpu, mounts=mounts, SOLO_MODELS="/models", SOLO_PORT=str(free_port()))
        assert status == 2
        assert f"solo serve: {line}\n" in lines
