"""The real `cvat-cli` in a process of its own, against the fake of CVAT's REST API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fake_cvat import TASK, FakeCvat


def cvat_cli(cvat: FakeCvat, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end; home: for its cache."""
    environment = os.environ | {"CVAT_ACCESS_TOKEN": "any", "HOME": str(home)}
    host, _, port = cvat.host.rpartition(":")
    command = [sys.executable, "-m", "cvat_cli", "--server-host", host, "--server-port", port, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def annotate(cvat: FakeCvat, home: Path, *arguments: str) -> dict[str, Any]:
    """What `cvat-cli task auto-annotate` uploads."""
    done = cvat_cli(cvat, home, "task", "auto-annotate", str(TASK), *arguments)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    annotations: dict[str, Any] = cvat.uploads[-1][2]
    return annotations
