"""Figures in the pages are those of the result files; files that must not be published are refused by name."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))  # where the command is no package

from pages import PAGES  # noqa: E402

BAR = "<!-- figures: accuracy -->\n"


def _pages(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/pages.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Pages and result files apart, to be spoilt."""
    for name in PAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    return tmp_path


def test_pages_hold_the_figures_of_the_result_files() -> None:
    done = _pages("--check")
    assert done.returncode == 0, done.stderr


def test_a_figure_typed_by_hand_is_found_and_replaced(copy: Path) -> None:
    page = copy / "docs" / "engines.md"
    good = page.read_text()
    page.write_text(good.replace(BAR, BAR + "| nine times faster |\n"))
    done = _pages("--check", "--root", copy)
    assert done.returncode == 1
    assert "docs/engines.md does not hold the figures" in done.stderr
    assert _pages("--root", copy).returncode == 0
    assert page.read_text() == good


def test_a_missing_file_is_named_and_reads_not_measured_yet(copy: Path) -> None:
    (copy / "benchmarks" / "results" / "demo_person_ap_fp16.json").unlink()
    done = _pages("--root", copy)
    assert done.returncode == 0
    assert "demo_person_ap_fp16.json is not there" in done.stderr
    assert "| fp16 on onnxruntime | not measured yet |" in (copy / "docs" / "engines.md").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"command": "solo bench pipeline /home/me/x.jpg"}, "holds an absolute path"),
        ({"command": "solo bench pipeline x.jpg --peer-python=/opt/python"}, "holds an absolute path"),
        ({"ended_early": "it died"}, "ended early (it died)"),
    ],
)
def test_a_file_that_must_not_be_published_is_refused(copy: Path, change: dict[str, str], said: str) -> None:
    path = copy / "benchmarks" / "results" / "demo_person_ap.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    done = _pages("--check", "--root", copy)
    assert done.returncode == 2
    assert f"demo_person_ap.json: {said}" in done.stderr.replace("command: ", "")


def test_every_rewrite_names_a_test_that_exists() -> None:
    source = (ROOT / "benchmarks" / "page_rewrites.py").read_text()
    named = re.findall(r'"(tests/[\w/.]+)::(\w+)"', source)
    assert len(named) >= 12
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text()
