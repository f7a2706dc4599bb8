"""Writes benchmark files, with command, commit, hardware and versions."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from solo_server.bench.machine import surroundings


def write_record(path: Path, results: dict[str, Any]) -> None:
    """Write `results` as JSON, with where and how they were measured."""
    command = shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    record = {"command": command, "commit": commit.stdout.strip(), **surroundings(), **results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """The content of a file; empty if it does not exist."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content
