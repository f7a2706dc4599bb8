"""The sanitizers find faults that kernels of the emulator's own tests have on purpose."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.gpu.emulator import sanitizer_environment


def crash(call: str) -> str:
    """What the sanitizers say before they end a process that does `call`."""
    code = f"from support.gpu.test_emulator import run\n{call}\nprint('fine')"
    environment = {**sanitizer_environment(), "PYTHONPATH": ":".join(filter(None, sys.path))}
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    return ran.stderr if ran.returncode else ran.stdout


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("run('write_beyond', 1, 64, 300, 300)", "heap-buffer-overflow"),
        ("run('write_beyond', 1, 64, 300, -1)", "heap-buffer-overflow"),
        ("run('write_beyond_shared', 1, 64, 64, 64)", "global-buffer-overflow|out of bounds"),
        ("run('write_beyond_dynamic', 1, 64, 64, 32, shared_bytes=128)", "heap-buffer-overflow"),
        ("run('overflow', 1, 64, 64, 2**31 - 10)", "signed integer overflow"),
        ("run('leave_others_waiting', 1, 64, 64)", "thread 33 ended"),
    ],
)
def test_sanitizers_find_a_planted_fault(call: str, words: str) -> None:
    said = crash(call)
    assert any(word in said for word in words.split("|")), said


def test_sanitizers_are_content_with_a_sound_kernel() -> None:
    assert crash("run('write_sums', 3, 1024, 3 * 1025)") == "fine\n"
