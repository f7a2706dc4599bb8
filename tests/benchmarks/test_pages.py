"""The pages have the figures of the result files; files that must not be published are refused by name."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # the scripts there are not a package

import pages
from pages import PAGES

BAR = "<!-- figures: accuracy -->\n"


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """run(*arguments): exit status and standard error of pages.py, in this process."""

    def run_pages(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pages.py", *map(str, arguments)])
        status = pages.main()
        return status, capsys.readouterr().err

    return run_pages


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the pages and result files, which a test may change."""
    for name in PAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    return tmp_path


def test_pages_have_the_figures_of_the_result_files() -> None:
    command = [sys.executable, "benchmarks/pages.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_figure_typed_by_hand_is_found_and_replaced(copy: Path, run: Run) -> None:
    page = copy / "docs" / "engines.md"
    good = page.read_text()
    page.write_text(good.replace(BAR, BAR + "| nine times faster |\n"))
    status, err = run("--check", "--root", copy)
    assert status == 1
    assert "docs/engines.md is out of date" in err
    assert run("--root", copy)[0] == 0
    assert page.read_text() == good


def test_a_missing_file_is_named_and_reads_not_measured_yet(copy: Path, run: Run) -> None:
    (copy / "benchmarks" / "results" / "demo_person_ap_fp16.json").unlink()
    status, err = run("--root", copy)
    assert status == 0
    assert "demo_person_ap_fp16.json does not exist" in err
    assert "| fp16 on onnxruntime | not measured yet |" in (copy / "docs" / "engines.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": "solo bench pipeline /home/me/x.jpg"}, "contains an absolute path"),
        ({"command": "solo bench pipeline x.jpg --peer-python=/opt/python"}, "contains an absolute path"),
        ({"ended_early": "it died"}, "ended early (it died)"),
    ],
)
def test_a_file_that_must_not_be_published_is_refused(
    copy: Path, run: Run, change: dict[str, str], message: str
) -> None:
    path = copy / "benchmarks" / "results" / "demo_person_ap.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    status, err = run("--check", "--root", copy)
    assert status == 2
    assert f"demo_person_ap.json: {message}" in err.replace("command: ", "")


def test_every_rewrite_names_a_test_that_exists() -> None:
    source = (ROOT / "benchmarks" / "page_rewrites.py").read_text()
    named = re.findall(r'"(tests/[\w/.]+)::(\w+)"', source)
    assert len(named) >= 12
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text()
