"""Runs the tests of kernels again: under the sanitizers, with threads and blocks in reverse order; and looking for data races.

Takes minutes, so that it is part of `make test-all` only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import pytest
from support.gpu.emulator import sanitizer_environment

TESTS = Path(__file__).parents[1]
POSTPROCESS = TESTS / "backends" / "gpu" / "postprocess"
MODULES = (
    "candidates",
    "masks",
    "select",
    "nms",
    "encode",
    "run",
)  # which launch kernels, and compare with the CPU path
SMALL_TESTS = (  # the others would take minutes more
    f"--deselect={(POSTPROCESS / 'test_run.py').relative_to(TESTS.parent)}",
    "-k",
    "not larger and not windows",
)

Pass = tuple[subprocess.Popen[bytes], IO[bytes]]


@pytest.fixture(scope="module")
def passes() -> Iterator[Mapping[str, Pass]]:
    """Both side by side: each takes one core for about two minutes."""
    started = {
        "sanitizers": _start(sanitizer_environment() | {"SOLO_BACKWARDS": "1"}),
        "races": _start({**os.environ, "SOLO_RACES": "1"}, *SMALL_TESTS),
    }
    yield started
    for process, output in started.values():
        process.kill()
        process.wait()
        output.close()


def test_kernels_touch_only_their_memory_and_do_not_depend_on_the_order_of_threads(passes: Mapping[str, Pass]) -> None:
    _check_passed(*passes["sanitizers"])


def test_kernels_have_no_data_races(passes: Mapping[str, Pass]) -> None:
    _check_passed(*passes["races"])


def _start(environment: Mapping[str, str], *options: str) -> Pass:
    output = TemporaryFile()  # noqa: SIM115  # closed by the fixture
    modules = [str(POSTPROCESS / f"test_{name}.py") for name in MODULES]
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", *options, *modules]
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    process = subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, env={**environment, **path}, cwd=TESTS.parent
    )
    return process, output


def _check_passed(process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
    status = process.wait()
    output.seek(0)
    printed = output.read().decode(errors="replace")
    assert status == 0, printed[-12000:]
    assert " passed" in printed
