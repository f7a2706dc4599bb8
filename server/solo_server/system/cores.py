"""How many cores this process may use, which a container or `taskset` may limit."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def cores(cgroups: Path = CGROUPS) -> int:
    """Cores that the process may run on, limited by the CPU quota of its control group; at least one.

    A quota of 1.5 cores counts as two. Inside a container its control group is mounted as the root; quotas of nested groups are
    not read.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroups)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def share_of_cores(sharing: int) -> int:
    """Cores for each of `sharing` workers or replicas; at least one."""
    return max(1, cores() // sharing)


def _quota(cgroups: Path) -> float | None:
    """The quota of the control group in cores; `None` if there is none, or it cannot be read."""
    try:
        if (cgroups / "cpu.max").exists():  # version 2
            given, period = (cgroups / "cpu.max").read_text().split()
        else:
            given = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text()
        return int(given) / int(period) if int(given) > 0 else None
    except (OSError, ValueError):  # no control groups here, or "max"
        return None
