"""The machine: its hardware and versions, as recorded in every benchmark file, and its load from other processes."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from solo_server.system.cores import cores

PACKAGES = ("solo-inference", "onnxruntime", "numpy", "pillow")
OPTIONAL_PACKAGES = ("openvino", "numba")
TELLING_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
NOISY_SHARE = 0.05  # of the whole machine
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def surroundings() -> dict[str, Any]:
    """Hardware and versions, as recorded in every benchmark file."""
    return {
        "hardware": {
            "cpu": cpu_model(),
            "cores": cores(),
            "instructions": _instructions(),
            "memory_gib": _memory_gib(),
            "gpu": None,
        },
        "versions": {"python": platform.python_version(), "system": platform.platform()} | installed_versions(),
    }


def provenance() -> dict[str, Any]:
    """Command, commit and time of a measurement, with its surroundings."""
    return {
        "command": shlex.join(["solo", *sys.argv[1:]]),
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(),
    }


def cpu_model() -> str:
    """The processor's model name."""
    return next(iter(_cpuinfo("model name")), platform.processor())


def busy_s() -> float | None:
    """Processor seconds that all processes have used since boot, stolen time included; `None` without /proc."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None  # not Linux: the load of other processes is not known
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, words[1:9])
    return (user + nice + system + irq + soft + steal) / _TICKS


def load_average() -> list[float]:
    """Load average over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []


def installed_versions() -> dict[str, str]:
    """Versions of the installed packages that take part in inference."""
    found = {}
    for name in (*PACKAGES, *OPTIONAL_PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # optional, or not used by this server
    return found


def _commit() -> str | None:
    """Commit of the checkout that contains this file, with `+` if it has changes; `None` for an installed package."""
    here = Path(__file__).parent
    commit = _git(here, "describe", "--always", "--dirty=+", "--exclude=*")
    inside = _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
    return commit if commit and inside else None


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - constant words
            ["git", "-C", str(folder), *words],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None  # no git here
    return done.stdout.strip() if done.returncode == 0 else None


def _instructions() -> list[str]:
    flags = set(next(iter(_cpuinfo("flags")), "").split())
    return [flag for flag in TELLING_FLAGS if flag in flags]


def _memory_gib() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / 2**20, 1) for line in lines if line.startswith("MemTotal")), None)


def _cpuinfo(name: str) -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(name)]
