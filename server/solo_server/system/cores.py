"""How many cores this process may use: fewer than the machine has where a container or `taskset` says so."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def cores(cgroups: Path = CGROUPS) -> int:
    """Cores, at least one: those that the process may run on, and no more than its control group has time for.

    A quota of 1.5 cores counts as two. Inside a container the control group is the root of what is mounted there; quotas of
    groups further in are not looked for.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroups)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def share_of_cores(sharing: int) -> int:
    """Cores for each of `sharing` that compute side by side, at least one."""
    return max(1, cores() // sharing)


def _quota(cgroups: Path) -> float | None:
    """Cores' worth of time that the control group may take; `None` where there is no limit, or none that can be read."""
    try:
        if (cgroups / "cpu.max").exists():  # version 2
            given, period = (cgroups / "cpu.max").read_text().split()
        else:
            given = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text()
        return int(given) / int(period) if int(given) > 0 else None
    except (OSError, ValueError):  # no control groups here, or "max"
        return None
