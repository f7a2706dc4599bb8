"""A pytest plugin that writes down what a run skipped, and the summary of it that `make test` ends with.

pytest runs ─► build/not_run.txt, one `reason (n tests)` a line ─► python tests/support/not_run.py ─► the last lines of make test

`--clear` begins a new list; `--all` is for `make test-all`.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "build" / "not_run.txt"
ONLY_IN_TEST_ALL = (
    "GPU code against NVIDIA's packages, other people's tools, the page in a browser, Kubernetes manifests, NVIDIA's "
    "tritonserver, sanitizers and the race detector, container images: `make test-all` runs them"
)
ON_RAY = "Ray Serve: `make test-ray` runs it"
ON_A_GPU = "CUDA and TensorRT code on a GPU: tests run it on emulators and fakes; `solo selftest` runs it on a GPU"
_PREFIX = "Skipped: "


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Append the reasons of this run's skipped tests to the file."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix(_PREFIX) for report in reports)
    append([f"{reason} ({_tests(count)})" for reason, count in reasons.items()])


def append(lines: list[str], file: Path | None = None) -> None:
    """Add lines to the file, which is made where it is missing."""
    file = file or FILE
    if lines:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in lines)


def summary(file: Path = FILE, *, is_all: bool = False) -> str:
    """What was not run and why, one line each, without repetitions. is_all: of `make test-all`."""
    written = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    always = [ON_RAY, ON_A_GPU] if is_all else [ONLY_IN_TEST_ALL, ON_RAY, ON_A_GPU]
    return "\n".join(["Not run on this machine:", *(f"- {line}" for line in dict.fromkeys([*written, *always]))])


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"


if __name__ == "__main__":
    if sys.argv[1:] == ["--clear"]:
        FILE.unlink(missing_ok=True)
    else:
        sys.stdout.write(f"{summary(is_all=sys.argv[1:] == ['--all'])}\n")
