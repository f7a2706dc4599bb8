"""JSON lines between the parent and a contender's process; implements the contender's side.

parent ─► {"setup": {...}}       once: what to load
       ◄─ {"hello": {...}}       or {"refused": "one line"}, then it exits
       ─► {"task": 0}          any number of times
       ◄─ {"stages_ms": {...}, "total_ms": 71.2, "instances": 8, "cpu_s": 0.13}
       ─► {"stop": true}
       ◄─ {"peak_rss_mib": 201.4}
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Protocol, TextIO

WorkerSetup = dict[str, Any]


class Refused(Exception):
    """A contender cannot run this setup; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A loaded contender. description: runtime and device; gflop: arithmetic per image by part, if known."""

    name: str
    description: str
    versions: dict[str, str]
    details: dict[str, Any] = field(default_factory=dict)
    gflop: dict[str, float] = field(default_factory=dict)
    load_ms: float = 0.0
    loaded_rss_mib: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerReply:
    """The timed result of a task (an image or a batch). cpu_s: processor time of the whole process for the task; aside_cpu_s: for
    work that is not part of the total.
    """

    stages_ms: dict[str, float]
    total_ms: float
    instances: int
    cpu_s: float
    aside_cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The result of a task. total_ms and aside_cpu_s: only if the task did work that does not count."""

    stages_ms: dict[str, float]
    instances: int
    total_ms: float | None = None
    aside_cpu_s: float = 0.0


class Worker(Protocol):
    """A contender: what its process runs between `hello` and `stop`."""

    def hello(self) -> Hello:
        """The contender's name and versions."""
        ...

    def run_task(self, index: int) -> TaskResult:
        """Run one task."""
        ...


def run_worker(open_worker: Callable[[WorkerSetup], Worker]) -> int:
    """Run tasks until the parent sends stop or exits; exit status of the process.

    Output of libraries goes to standard error, since standard output is used by the protocol.
    """
    replies = _own_stdout()
    start = perf_counter()
    try:
        worker = open_worker(json.loads(sys.stdin.readline())["setup"])
    except Refused as problem:
        _send(replies, {"refused": " ".join(str(problem).split())})
        return 2
    hello = asdict(worker.hello())
    hello |= {"load_ms": round((perf_counter() - start) * 1e3, 3), "loaded_rss_mib": rss_mib("VmRSS")}
    _send(replies, {"hello": hello})
    for line in sys.stdin:
        message = json.loads(line)
        if "task" not in message:
            break
        _send(replies, asdict(_timed(worker, message["task"])))
    _send(replies, {"peak_rss_mib": rss_mib("VmHWM")})
    return 0


def rss_mib(field_name: str, process: str = "self") -> float | None:
    """`VmRSS` (current) or `VmHWM` (peak) of a process in MiB; `None` without /proc.

    Not `ru_maxrss`, which starts at the parent's value when it forked.
    """
    status = Path(f"/proc/{process}/status")
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None  # no /proc, or the process has ended
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith(field_name)), None)


def _timed(worker: Worker, index: int) -> WorkerReply:
    start, cpu = perf_counter(), process_time()
    done = worker.run_task(index)
    total_ms, cpu_s = (perf_counter() - start) * 1e3, process_time() - cpu
    return WorkerReply(
        stages_ms={name: round(ms, 3) for name, ms in done.stages_ms.items()},
        total_ms=round(total_ms if done.total_ms is None else done.total_ms, 3),
        instances=done.instances,
        cpu_s=round(cpu_s - done.aside_cpu_s, 4),
        aside_cpu_s=round(done.aside_cpu_s, 4),
    )


def _own_stdout() -> TextIO:
    """The real standard output; afterwards descriptor 1 is standard error."""
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return stdout


def _send(stream: TextIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()
