"""`--help` works without the exporter's packages, and lists the engines that the error messages list."""

import re
import subprocess
import sys

import pytest
from solo_models.cli import COMMANDS
from solo_server.engine_names import ENGINES

FOR_EXPORT_ONLY = ("torch", "onnx", "pycocotools", "safetensors", "tqdm", "cv2")
WITHOUT = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FOR_EXPORT_ONLY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from solo_models.cli import main
sys.exit(main(sys.argv[1:]))
"""
VERBS = [[command] for command in COMMANDS] + [["bench", verb] for verb in ("engine", "pipeline", "server", "report")]


def _without_the_exporters_packages(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("words", [[], *VERBS], ids=" ".join)
def test_help_needs_none_of_the_exporters_packages(words: list[str]) -> None:
    done = _without_the_exporters_packages(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" ".join(["usage: solo", *words]))


def test_an_export_without_its_packages_says_how_to_install_them() -> None:
    done = _without_the_exporters_packages("export", "x.pth", "-o", "out")
    assert done.returncode == 2
    assert re.fullmatch(
        r"solo export: \w+ is not installed; pip install -c constraints\.txt -e '\.\[export\]' .*\n", done.stderr
    )


@pytest.mark.parametrize("words", [["serve"], ["segment"], ["bench", "engine"], ["bench", "server"]], ids=" ".join)
def test_help_lists_the_engines_that_the_error_lists(words: list[str]) -> None:
    text = " ".join(_without_the_exporters_packages(*words, "--help").stdout.split())
    assert ", ".join(ENGINES) in text
