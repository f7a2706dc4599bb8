"""The commands and the program of docs/formats.md do what the page says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from solo_results.formats import FORMATS
from solo_results.formats.base import MAX_FILE_BYTES, MAX_PIXELS
from support.paths import ASTRONAUT, ROOT

PAGE = (ROOT / "docs" / "formats.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if re.match(r"\| `\w", line)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where every command of the page has run, in order, then its program."""
    place = tmp_path_factory.mktemp("page")
    (place / "photos").mkdir()
    shutil.copy(ASTRONAUT, place / "photos" / "a1.jpg")
    with Image.open(ASTRONAUT) as image:
        image.resize((333, 250)).save(place / "photos" / "b2.jpg")
    shim = place / "bin" / "solo"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m solo_models.cli "$@"\n')
    shim.chmod(0o755)
    environment = os.environ | {"PATH": f"{shim.parent}:{os.environ['PATH']}"}
    program = f"{shlex.quote(sys.executable)} -c {shlex.quote(PROGRAM)}"
    for number, command in enumerate([*COMMANDS, program]):
        done = subprocess.run(
            ["/bin/sh", "-ec", command], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        (place / f"said{number}").write_text(done.stdout + done.stderr)
    return place


def _masks(path: Path) -> list[tuple[str, list[str]]]:
    return [
        (Path(one["file"]).name, sorted(i["mask"]["counts"] for i in one["instances"]))
        for one in json.loads(path.read_text())
    ]


def test_the_page_has_a_command_and_a_row_for_each_format() -> None:
    assert {word for command in COMMANDS for word in re.findall(r"--to (\S+)", command)} == set(FORMATS)
    rows = [row for row in ROWS if len(row) == 9]
    assert [row[0].strip("`") for row in rows] == list(FORMATS)
    assert [row[1] == "all images" for row in rows] == [facts.one_file for facts in FORMATS.values()]


def test_the_page_has_the_limits() -> None:
    assert f"A file may have {MAX_FILE_BYTES >> 20} MiB, and an image {MAX_PIXELS // 10**6} million pixels" in PAGE


def test_the_commands_write_the_same_masks(folder: Path) -> None:
    found = _masks(folder / "found.json")
    assert [name for name, _ in found] == ["a1.jpg", "b2.jpg"]
    assert len(found[0][1]) > 2
    assert _masks(folder / "from_yolo.json") == found
    images = json.loads((folder / "corrected.json").read_text())
    assert len(images["annotations"]) == sum(len(counts) for _, counts in found)
    shapes = [json.loads(path.read_text())["shapes"] for path in sorted((folder / "from_coco").rglob("*.json"))]
    assert [len({shape["label"] for shape in one}) for one in shapes] == [1, 1]


def test_losses_are_told(folder: Path) -> None:
    said = {command: (folder / f"said{number}").read_text() for number, command in enumerate(COMMANDS)}
    for command, text in said.items():
        (name,) = re.findall(r"--to (\S+)", command) or ["json"]
        assert ("does not keep" in text) == (FORMATS[name].loses is not None), command


def test_the_program_prints_the_parts_of_the_best_instance(folder: Path) -> None:
    assert re.fullmatch(r"(\d+ corners, \d+ holes\n)+", (folder / f"said{len(COMMANDS)}").read_text())
    assert len(list((folder / "from_python").rglob("*.json"))) == 2
