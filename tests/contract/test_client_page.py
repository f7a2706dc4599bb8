"""docs/client.md: its examples run against a real server, and it lists every exception, argument and method."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import solo_client
from PIL import Image
from solo_client import AsyncSoloClient, Options, SoloClient, errors
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import model_repository
from solo_server.settings import Settings
from support.bundles import tiny_bundle
from support.images import encoded, smooth_image
from support.paths import ROOT
from support.serving import serving

PAGE = (ROOT / "docs" / "client.md").read_text()
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
KEY = "page-0123456789abcdef"
OPEN_URL, KEYED_URL = "http://localhost:8000", "https://solo.example.com"


@pytest.fixture(scope="module")
def folder(solo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(solo_bundle, folder / "cats" / "1")
    shutil.copytree(tiny_bundle("decoupled"), folder / "dogs")
    return folder


def _serving(folder: Path, **settings: Any) -> Iterator[str]:
    models = model_repository(None, folder, lambda path: Pipeline.open(path, threads=1))
    known = Settings(models=folder, default_model="cats", **settings)
    with serving(create_app(models, known)) as client:
        yield str(client.base_url)


@pytest.fixture(scope="module")
def open_url(folder: Path) -> Iterator[str]:
    yield from _serving(folder)


@pytest.fixture(scope="module")
def keyed_url(folder: Path) -> Iterator[str]:
    yield from _serving(folder, api_keys=KEY)


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, a temporary one, with the files that the examples read."""
    (tmp_path / "photo.jpg").write_bytes(encoded(smooth_image(90, 120), "JPEG"))
    (tmp_path / "street.png").write_bytes(encoded(smooth_image(80, 60, seed=1)))
    (tmp_path / "photos").mkdir()
    for number in range(6):
        (tmp_path / "photos" / f"{number}.png").write_bytes(encoded(smooth_image(60, 80, seed=number)))
    (tmp_path / "key.txt").write_text(f"{KEY}\n")
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return tmp_path


def _run(kind: str, text: str) -> str:
    """Run an example in its own process; what it prints."""
    words = [sys.executable, "-W", "error::ResourceWarning", "-c", text]
    if kind == "sh":
        program, *arguments = shlex.split(text)
        assert program == "solo"
        words = [sys.executable, "-m", "solo_models.cli", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _check_drawn() -> None:
    with Image.open("drawn.png") as drawn:
        assert drawn.size == (120, 90)


def _check_results() -> None:
    entries = json.loads(Path("results.json").read_text())
    assert {entry["image_id"] for entry in entries} == {139, 285}
    assert {entry["category_id"] for entry in entries} <= {17, 18, 10}


def _check_answer() -> None:
    assert json.loads(Path("answer.json").read_text())["model"] == {"name": "cats", "version": "1"}


WRITTEN = {"drawn.png": _check_drawn, "results.json": _check_results, "answer.json": _check_answer}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_example_runs_and_writes_complete_files(
    number: int, working_folder: Path, open_url: str, keyed_url: str
) -> None:
    kind, text = BLOCKS[number]
    assert OPEN_URL in text or KEYED_URL in text
    printed = _run(kind, text.replace(OPEN_URL, open_url).replace(KEYED_URL, keyed_url))
    for line in re.findall(r"# prints (.*)$", text, re.MULTILINE):
        assert line in printed
    for name, check in WRITTEN.items():
        if name in text:
            check()


def test_each_file_is_written_by_an_example() -> None:
    assert {name for name in WRITTEN for _, text in BLOCKS if name in text} == set(WRITTEN)


def test_the_page_names_every_exception_with_its_code() -> None:
    table = PAGE[PAGE.index("## Errors") :]
    named = set(re.findall(r"`(\w+)`", table))
    raised = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, errors.SoloError)}
    assert raised - {"SoloError"} <= named
    for code, kind in errors.BY_CODE.items():
        assert re.search(rf"^\|.*`{kind.__name__}`.*`{code}`", table, re.MULTILINE), code


def test_the_page_names_every_argument_method_and_option() -> None:
    shown = set(re.findall(r"^\| `([^|]*)` \|", PAGE, re.MULTILINE))
    cells = {word for cell in shown for word in re.findall(r"\w+", cell)}
    arguments = set(inspect.signature(SoloClient).parameters)
    methods = {name for name in vars(SoloClient) if not name.startswith("_")} - {"close"}
    assert arguments | methods | set(Options.__annotations__) <= cells
    assert inspect.signature(SoloClient).parameters.keys() == inspect.signature(AsyncSoloClient).parameters.keys()
    assert {n for n in vars(AsyncSoloClient) if not n.startswith("_")} == methods | {"close"}


def test_the_page_names_every_field_of_a_result() -> None:
    for kind in (solo_client.Result, solo_client.Instance, solo_client.Problem):
        for name in kind.__dataclass_fields__:
            assert f"`{name}`" in PAGE, name


def test_the_server_of_the_examples_has_both_models(open_url: str) -> None:
    listed = httpx.get(f"{open_url}/models").json()
    assert (listed["default"], {model["name"] for model in listed["models"]}) == ("cats", {"cats", "dogs"})
