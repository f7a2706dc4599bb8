"""All tests of kernels once more, watched by the sanitizers and with threads and blocks in the opposite order; then for races."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gpu.emulator import sanitizer_environment

HERE = Path(__file__).parent
TESTS = ("candidates", "masks", "select", "nms", "encode", "run")  # which launch kernels, and compare with the CPU path
SMALL_TESTS = (
    "--deselect=tests/gpu/test_run.py",
    "-k",
    "not larger and not windows",
)  # the rest would take minutes more


def test_kernels_touch_only_their_memory_and_do_not_depend_on_the_order_of_threads() -> None:
    _pass(sanitizer_environment() | {"SOLO_BACKWARDS": "1"})


def test_kernels_have_no_data_races() -> None:
    _pass({**os.environ, "SOLO_RACES": "1"}, *SMALL_TESTS)


def _pass(environment: dict[str, str], *options: str) -> None:
    environment = environment | {"PYTHONPATH": ":".join(filter(None, sys.path))}
    tests = [str(HERE / f"test_{name}.py") for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", *options, *tests]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=HERE.parent.parent)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-4000:]
