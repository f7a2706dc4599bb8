"""The examples of docs/segment.md do what the page says."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from solo_models.demo import demo_bundle
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from support.paths import ASTRONAUT, ROOT
from support.serving import serving
from support.videos import write_video

PAGE = (ROOT / "docs" / "segment.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
URL = "http://127.0.0.1:8000"
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
from solo_models.cli import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with serving(create_app(Pipeline.open(demo_bundle(), slots=0))) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, server: httpx.Client) -> Path:
    """A folder where every command of the page has run, in order, with `solo` on the path and the page's server."""
    place = tmp_path_factory.mktemp("page")
    names = ("photo.jpg", "photos/a1.jpg", "photos/b1.jpg", "photos/below/c.jpg")
    for name in names:
        (place / name).parent.mkdir(exist_ok=True)
        shutil.copy(ASTRONAUT, place / name)
    photograph = np.asarray(Image.open(ASTRONAUT).convert("RGB").resize((192, 192)))
    write_video(place / "clip.mp4", [photograph[:, n : n + 160] for n in range(12)])
    images = [{"id": 10 + n, "file_name": Path(name).name, "height": 512, "width": 512} for n, name in enumerate(names)]
    truth = {"images": images, "annotations": [], "categories": [{"id": 44, "name": "person"}]}
    (place / "annotations.json").write_text(json.dumps(truth))
    shim = place / "bin" / "solo"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m solo_models.cli "$@"\n')
    shim.chmod(0o755)
    environment = os.environ | {"PATH": f"{shim.parent}:{os.environ['PATH']}"}
    said = []
    for command in COMMANDS:
        typed = command.replace(URL, str(server.base_url).rstrip("/"))
        done = subprocess.run(
            ["/bin/sh", "-ec", typed], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        said.append(done.stdout)
    (place / "said").write_text("".join(said))
    return place


def test_the_page_has_its_examples() -> None:
    assert len(COMMANDS) == 11
    assert all("solo segment " in command for command in COMMANDS)
    assert sum(URL in command for command in COMMANDS) == 1


def test_the_examples_write_what_the_page_says(folder: Path) -> None:
    first = json.loads((folder / "said").read_text())
    instances = json.loads((folder / "photo.json").read_text())["instances"]
    assert first["instances"]
    assert {one["label"] for one in instances} == {"person"}
    assert (folder / "drawn.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (folder / "found.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["photos/a1.jpg", "photos/b1.jpg", "photos/below/c.jpg"]
    assert (folder / "drawn.mp4").exists()
    assert [json.loads(line)["frame"] for line in (folder / "clip.jsonl").read_text().splitlines()] == list(range(12))
    assert [json.loads(line)["frame"] for line in (folder / "frames.jsonl").read_text().splitlines()] == [0, 5, 10]
    assert {one["image_id"] for one in json.loads((folder / "results.coco.json").read_text())} == {0, 1, 2}
    drawn = {"a1.overlay.png", "b1.overlay.png", "clip.overlay.mp4"}
    assert {path.name for path in (folder / "drawn").iterdir()} == drawn
    found = json.loads((folder / "found.json").read_text())
    assert [one["file"] for one in found] == ["photos/a1.jpg", "photos/b1.jpg"]
    assert min(i["score"] for one in found for i in one["instances"]) >= 0.3


def test_local_and_served_answers_are_the_same(folder: Path) -> None:
    local = json.loads((folder / "found.jsonl").read_text().splitlines()[0])["instances"]
    served = json.loads((folder / "found.json").read_text())[0]["instances"]
    assert served == [one for one in local if one["score"] >= 0.3]


def test_results_are_scored_as_the_page_says(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    assert {(one["image_id"], one["category_id"]) for one in results} == {(11, 44), (12, 44)}
    truth = json.loads((folder / "annotations.json").read_text())
    best = [next(one for one in results if one["image_id"] == image_id) for image_id in (11, 12)]
    truth["annotations"] = [
        {**one, "id": number, "iscrowd": 0, "area": 50_000, "bbox": [0, 0, 512, 512]}
        for number, one in enumerate(best, start=1)
    ]
    (folder / "annotations.json").write_text(json.dumps(truth))
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    scored = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000" in scored.stdout


@pytest.mark.parametrize("is_served", [False, True])
def test_an_interrupt_ends_with_130_and_complete_lines(tmp_path: Path, server: httpx.Client, is_served: bool) -> None:
    for number in range(300):
        (tmp_path / f"{number}.jpg").symlink_to(ASTRONAUT)
    where = ["--url", str(server.base_url)] if is_served else []
    command = [sys.executable, "-c", INTERRUPTIBLE, "segment", str(tmp_path), "--format", "jsonl", *where]
    with (
        (tmp_path / "complaint").open("w") as complaint,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaint, text=True) as process,
    ):
        assert process.stdout is not None
        said = [process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        said += process.stdout.readlines()
    assert process.returncode == 130
    assert (tmp_path / "complaint").read_text() == "solo segment: interrupted\n"
    lines = [json.loads(line) for line in said]
    assert 0 < len(lines) < 300
    assert all(line["instances"] for line in lines)
