"""A contender's process, as the parent sees it: start, run tasks, stop; with its last output if it dies.

Each runs in its own session, so that Ctrl-C reaches only the parent, which then stops its children.
"""

from __future__ import annotations

import json
import select
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar

from solo_server.bench.errors import BenchError, EndedEarly
from solo_server.bench.protocol import Hello, WorkerReply, WorkerSetup

LOAD_SECONDS = 600.0
ANSWER_SECONDS = 600.0
STOP_SECONDS = 10.0
SHOWN_LINES = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """How to start a contender. role: its name in messages until it has sent its own name."""

    command: tuple[str, ...]
    setup: WorkerSetup
    environment: Mapping[str, str]
    role: str


class ContenderProcess:
    """A running contender. Use it as a context manager, which always ends the process."""

    def __init__(self, launch: LaunchSpec) -> None:
        self.label = launch.role
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`; an unread pipe would fill up and block
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own workers and the peer that the user names
                launch.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=dict(launch.environment),
                start_new_session=True,
            )
        except OSError as problem:
            self._stderr.close()
            raise BenchError(f"{launch.role}: {launch.command[0]} cannot be started ({problem.strerror})") from problem
        self._unread = b""
        try:
            self.hello = self._greet(launch.setup)
        except BaseException:
            self.kill()
            raise
        self.label = self.hello.name

    def __enter__(self) -> ContenderProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def run_task(self, index: int) -> WorkerReply:
        """Run one task.

        Raises:
            EndedEarly: the process died, or did not reply in time.
        """
        return _record(WorkerReply, self._exchange({"task": index}, ANSWER_SECONDS))

    def stop(self) -> float | None:
        """Stop the process; its peak resident memory in MiB, if known."""
        peak = self._exchange({"stop": True}, STOP_SECONDS).get("peak_rss_mib")
        self._process.wait(STOP_SECONDS)
        return peak

    def kill(self) -> None:
        """Kill the process if it still runs."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                _close(pipe)
        self._stderr.close()

    def _greet(self, setup: WorkerSetup) -> Hello:
        try:
            reply = self._exchange({"setup": setup}, LOAD_SECONDS)
        except EndedEarly as problem:
            raise BenchError(str(problem)) from problem
        if "refused" in reply:
            raise BenchError(f"{self.label}: {reply['refused']}")
        return _record(Hello, reply.get("hello", {}))

    def _exchange(self, message: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        if self._process.stdin is None:
            raise RuntimeError("the child was started without pipes")
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as problem:
            raise EndedEarly(self._exit_report()) from problem
        line = self._read_line(timeout_s)
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise EndedEarly(f"{self.label}: replied {line[:80]!r}, which is not the protocol")
        return reply

    def _read_line(self, timeout_s: float) -> bytes:
        """One line of the process's standard output, or EndedEarly after the timeout."""
        if self._process.stdout is None:
            raise RuntimeError("the child was started without pipes")
        deadline = monotonic() + timeout_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - monotonic()))
            if not ready:
                raise EndedEarly(f"{self.label}: no reply within {timeout_s:.0f} s")
            chunk = self._process.stdout.read1(65536)  # type: ignore[attr-defined]  # a BufferedReader
            if not chunk:
                raise EndedEarly(self._exit_report())
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _exit_report(self) -> str:
        status = self._process.wait(STOP_SECONDS)
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        return f"{self.label}: {how}: " + (" | ".join(lines[-SHOWN_LINES:]) or "no output")


def _record(cls: type[T], reply: dict[str, Any]) -> T:
    """A reply as a record; unknown members are ignored."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]  # only called with dataclasses
    try:
        return cls(**{name: value for name, value in reply.items() if name in known})
    except TypeError as problem:
        raise EndedEarly(f"the contender's reply is not the protocol: {problem}") from problem


def _close(pipe: Any) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return  # the process ended before it read the last line
