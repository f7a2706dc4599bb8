"""Requests that schemathesis generates from the server's OpenAPI document, and the responses, by operation.

    python benchmarks/fuzz_requests.py http://127.0.0.1:8000 [-n 100] [--seed 0]

Every operation is tried with all boundary values, then with `-n` random requests, valid and invalid. A response fails if it is a
500, takes more than 5 s, differs from the document (status, media type, schema, headers), accepts an invalid request, or rejects
a valid one. Exit status 1 if one fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_S = 5
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
FAILED = 1


def main() -> int:
    """Try all operations of one server and report the responses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="URL of a running server")
    parser.add_argument("-n", "--examples", type=int, default=100, help="random requests for each operation")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tried = try_operations(arguments.url, arguments.examples, arguments.seed)
    for operation, answers in tried.answers.items():
        print(f"{operation:<40} {answers.total():>5}  {dict(sorted(answers.items()))}")
    print(tried.output)
    return 1 if tried.failures else 0


@dataclass(slots=True)
class Tried:
    """answers: counts by status for each operation. failures: title and operation, from schemathesis; output: its full report."""

    answers: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    output: str = ""


def try_operations(url: str, examples: int, seed: int) -> Tried:
    """Run schemathesis against a server.

    Raises:
        RuntimeError: it did not finish, or skipped an operation.
    """
    with tempfile.TemporaryDirectory() as folder:
        events, report = Path(folder, "events.ndjson"), Path(folder, "report.json")
        command = [
            *[sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", CONFIGURATION, "run"],
            *[f"{url.rstrip('/')}/openapi.json", "--phases", "examples,coverage,fuzzing", "--continue-on-failure"],
            *["--max-examples", examples, "--seed", seed, "--generation-database", "none", "--no-shrink"],
            *["--max-response-time", LIMIT_S, "--suppress-health-check", "all", "--report", "ndjson,json"],
            *["--report-ndjson-path", events, "--report-json-path", report],
        ]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode not in (0, FAILED) or not (events.exists() and report.exists()):
            raise RuntimeError(f"schemathesis ended with {done.returncode}: {done.stdout}{done.stderr}")
        tried = _read(_events(events), json.loads(report.read_text()))
    tried.output = done.stdout
    if done.returncode == FAILED and not tried.failures:
        raise RuntimeError(f"schemathesis failed without a failure: {done.stdout}{done.stderr}")
    return tried


def _read(recorders: Iterator[dict[str, Any]], report: dict[str, Any]) -> Tried:
    operations = report["operations"]
    if not report["complete"] or operations["tested"] != operations["total"] or report["test_cases"]["errored"]:
        raise RuntimeError(f"schemathesis left operations out: {operations}, {report['test_cases']}")
    failures = [f"{failure['title']}: {where}" for failure in report["failures"] for where in failure["operations"]]
    tried = Tried(failures=failures)
    for recorder in recorders:
        answers = tried.answers.setdefault(recorder["label"], Counter())
        for interaction in recorder["interactions"].values():
            response = interaction["response"]
            answers[str(response["status_code"]) if response else "none"] += 1
            tried.slowest_s = max(tried.slowest_s, response["elapsed"] if response else 0.0)
    return tried


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """Requests and responses of each phase of each operation."""
    for line in path.read_text().splitlines():
        event = json.loads(line).get("ScenarioFinished")
        if event and event["recorder"].get("interactions"):
            yield event["recorder"]


if __name__ == "__main__":
    sys.exit(main())
