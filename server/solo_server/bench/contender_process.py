"""A contender's process as the parent sees it: start, ask, stop; what it said last when it dies.

Each runs in a session of its own, so that Ctrl-C reaches the parent only, which then stops its children.
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
    """How to start a contender. role: how messages name it before it has said who it is; afterwards its own name is used."""

    command: tuple[str, ...]
    setup: WorkerSetup
    environment: Mapping[str, str]
    role: str


class ContenderProcess:
    """One running contender; use it in a `with`, which ends the process whatever happens."""

    def __init__(self, start: LaunchSpec) -> None:
        self.label = start.role
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`; a pipe that nobody reads would fill up and block
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own workers and the peer that the user names
                start.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=dict(start.environment),
                start_new_session=True,
            )
        except OSError as problem:
            self._stderr.close()
            raise BenchError(f"{start.role}: {start.command[0]} cannot be started ({problem.strerror})") from problem
        self._unread = b""
        try:
            self.hello = self._greet(start.setup)
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
        """Have one task done.

        Raises:
            EndedEarly: the process died, or did not answer in time.
        """
        return _record(WorkerReply, self._exchange({"task": index}, ANSWER_SECONDS))

    def stop(self) -> float | None:
        """Say goodbye; the most memory that the process ever had resident, in MiB, where it knows."""
        peak = self._exchange({"stop": True}, STOP_SECONDS).get("peak_rss_mib")
        self._process.wait(STOP_SECONDS)
        return peak

    def kill(self) -> None:
        """End the process now, if it still runs."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                _close(pipe)
        self._stderr.close()

    def _greet(self, setup: WorkerSetup) -> Hello:
        try:
            said = self._exchange({"setup": setup}, LOAD_SECONDS)
        except EndedEarly as problem:
            raise BenchError(str(problem)) from problem
        if "refused" in said:
            raise BenchError(f"{self.label}: {said['refused']}")
        return _record(Hello, said.get("hello", {}))

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
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise EndedEarly(f"{self.label}: answered {line[:80]!r}, which is not of the protocol")
        return said

    def _read_line(self, timeout_s: float) -> bytes:
        """One line of the child's standard output, without waiting for ever."""
        if self._process.stdout is None:
            raise RuntimeError("the child was started without pipes")
        deadline = monotonic() + timeout_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - monotonic()))
            if not ready:
                raise EndedEarly(f"{self.label}: no answer within {timeout_s:.0f} s")
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
        return f"{self.label}: {how}: " + (" | ".join(lines[-SHOWN_LINES:]) or "it said nothing")


def _record(cls: type[T], said: dict[str, Any]) -> T:
    """What a child said as a record; what it said beyond that is passed over."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]  # only called with dataclasses
    try:
        return cls(**{name: value for name, value in said.items() if name in known})
    except TypeError as problem:
        raise EndedEarly(f"the contender's answer is not of the protocol: {problem}") from problem


def _close(pipe: Any) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return  # the last line was not taken any more; the process is gone
