"""All tests of kernels once more, watched by the sanitizers and with threads and blocks in the opposite order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gpu.emulator import sanitizer_environment

HERE = Path(__file__).parent
TESTS = ("candidates", "masks", "select", "nms", "encode", "run")  # which launch kernels, and compare with the CPU path


def test_kernels_touch_only_their_memory_and_do_not_depend_on_the_order_of_threads() -> None:
    environment = {**sanitizer_environment(), "SOLO_BACKWARDS": "1", "PYTHONPATH": ":".join(filter(None, sys.path))}
    tests = [str(HERE / f"test_{name}.py") for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", *tests]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=HERE.parent.parent)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-4000:]
