"""The server that is measured: `solo serve`, started here on a free loopback port, or a running one. Benchmarks start other servers
the same way.

For a server started here, processor time and resident memory are read from /proc, including its children's.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from solo_server.bench.errors import BenchError
from solo_server.bench.protocol import rss_mib

READY_SECONDS = 300.0
STOP_SECONDS = 25.0
ANSWER_SECONDS = 10.0
SHOWN_LINES = 2
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address. path: the prefix before `/segment`."""

    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse `http://host:port/prefix`.

        Raises:
            BenchError: another form; TLS is not supported.
        """
        parts = urlsplit(url)
        try:
            port = parts.port or 80
        except ValueError as problem:
            raise BenchError(f"--url {url}: {problem}") from problem
        if parts.scheme != "http" or not parts.hostname:
            raise BenchError(f"--url {url}: must be of the form http://HOST:PORT")
        return cls(parts.hostname, port, parts.path.rstrip("/"))

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET request. Raises OSError without a response."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", self.path + path)
            response = connection.getresponse()
            return response.status, _json(response.read())
        except http.client.HTTPException as problem:
            raise OSError(f"the response is not HTTP ({type(problem).__name__})") from problem
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Program:
    """A server program. command: accepts `--host` and `--port`; ready_path: returns 200 when requests are accepted."""

    name: str = "solo serve"
    command: tuple[str, ...] = (sys.executable, "-m", "solo_models.cli", "serve")
    ready_path: str = "/readyz"
    environment: Mapping[str, str] | None = None


SOLO_SERVE = Program()


class ServerProcess:
    """`solo serve`, or another program, as a child in its own session. Use it as a context manager, which stops it."""

    def __init__(self, arguments: Sequence[str], program: Program = SOLO_SERVE) -> None:
        self.address, self._program = Address("127.0.0.1", _free_port()), program
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `__exit__`; a pipe would not be read
        listen = ["--host", self.address.host, "--port", str(self.address.port)]
        self._process = subprocess.Popen(  # noqa: S603 - our own server
            [*program.command, *listen, *arguments],
            env=None if program.environment is None else dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            start_new_session=True,
        )

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(ProcessLookupError):  # children that it left running; it has its own session
            os.killpg(self._process.pid, signal.SIGKILL)
        self._stderr.close()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def exit_status(self, wait_s: float) -> int | None:
        """Exit status, negative for a signal; `None` if the process still runs after `wait_s`."""
        try:
            return self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None

    def family(self) -> list[int]:
        """The process and its descendants."""
        return _family(self.pid)

    def children(self) -> list[int]:
        """The direct children of the process."""
        return _children().get(self.pid, [])

    def wait_ready(self) -> None:
        """Wait until `ready_path` returns 200.

        Raises:
            BenchError: the process ended, or is not ready in time.
        """
        deadline = monotonic() + READY_SECONDS
        while monotonic() < deadline:
            if (report := self.exit_report(0)) is not None:
                raise BenchError(report)
            try:
                if self.address.get(self._program.ready_path)[0] == http.client.OK:
                    return
            except OSError:
                pass  # not listening yet
            sleep(0.05)
        raise BenchError(f"{self._program.name} is not ready after {READY_SECONDS:.0f} s")

    def exit_report(self, wait_s: float) -> str | None:
        """How the process ended, and its last output; `None` if it still runs after `wait_s`."""
        status = self.exit_status(wait_s)
        if status is None:
            return None
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        return f"{self._program.name} {how}: " + (" | ".join(lines[-SHOWN_LINES:]) or "no output")

    def cpu_s(self) -> float | None:
        """Processor time used so far by the process and its descendants."""
        times = [_stat(pid) for pid in _family(self._process.pid)]
        known = [(int(words[11]) + int(words[12])) / _TICKS for words in times if words]
        return sum(known) if known else None

    def rss_mib(self, field_name: str) -> float | None:
        """`VmRSS` (now) or `VmHWM` (highest ever) of the process and its descendants."""
        known = [mib for pid in _family(self._process.pid) if (mib := rss_mib(field_name, str(pid))) is not None]
        return round(sum(known), 1) if known else None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    children, family = _children(), [pid]
    for member in family:
        family += children.get(member, [])
    return family


def _children() -> dict[int, list[int]]:
    """Children by parent process id."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        if words := _stat(int(folder.name)):
            children[int(words[1])].append(int(folder.name))
    return dict(children)


def _stat(pid: int) -> list[str] | None:
    """Words of /proc/PID/stat after the name: state, parent, ..., user and system ticks at 11 and 12."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None  # the process has ended, or there is no /proc
