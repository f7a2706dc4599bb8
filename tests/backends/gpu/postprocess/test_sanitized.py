"""All tests of kernels once more: watched by the sanitizers, with threads and blocks in the opposite order; and for races."""

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

HERE = Path(__file__).parent
TESTS = ("candidates", "masks", "select", "nms", "encode", "run")  # which launch kernels, and compare with the CPU path
SMALL_TESTS = (
    "--deselect=tests/backends/gpu/postprocess/test_run.py",
    "-k",
    "not larger and not windows",
)  # the rest would take minutes more

Pass = tuple[subprocess.Popen[bytes], IO[bytes]]


@pytest.fixture(scope="module")
def passes() -> Iterator[Mapping[str, Pass]]:
    """Both at once: each takes one core for about two minutes."""
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
    tests = [str(HERE / f"test_{name}.py") for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", *options, *tests]
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    process = subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, env={**environment, **path}, cwd=HERE.parent.parent
    )
    return process, output


def _check_passed(process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
    status = process.wait()
    output.seek(0)
    told = output.read().decode(errors="replace")
    assert status == 0, told[-12000:]
    assert " passed" in told
