"""A control group with a memory limit, as container engines create it, if this machine allows it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
JOIN = 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"'


@contextmanager
def limited(size_bytes: int) -> Iterator[Sequence[str]]:
    """The command prefix that limits the memory of a command and its children; empty without control groups."""
    version_1 = GROUPS / "memory"
    parent, name = (version_1, "memory.limit_in_bytes") if version_1.is_dir() else (GROUPS, "memory.max")
    group = parent / f"solo-image-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / name).write_text(str(size_bytes))
    except OSError:
        yield ()
        return
    try:
        yield ("sh", "-c", JOIN, "sh", str(group))
    finally:
        group.rmdir()
