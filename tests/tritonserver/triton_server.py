"""The real tritonserver of nvidia-pytriton on loopback, in a process group of its own that surely ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx

START_SECONDS, STOP_SECONDS = 240, 30
MODEL_ERROR = "failed to load"


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready. address: host and port; log: what it has written, standard error included."""

    address: str
    log_file: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")


@contextmanager
def triton_server(
    repository: Path, folder: Path, *, python: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Start Triton on a model repository and wait until it is ready.

    folder: for the log and for Triton's back end; python: the `bin` folder of the back end's environment, by default this one.

    Raises:
        RuntimeError: it ends before it is ready; the message is its log.
    """
    with _started(repository, folder, python, environment) as running:
        _wait(running)
        yield running


def failed_log(repository: Path, folder: Path, *, python: Path | None = None) -> str:
    """The log of a server that refuses to start, without the stack of Python's import system."""
    with _started(repository, folder, python, None) as running:
        running.process.wait(START_SECONDS)
        return running.log


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _started(
    repository: Path, folder: Path, python: Path | None, environment: Mapping[str, str] | None
) -> Iterator[Running]:
    port, prefix, log_file = free_port(), f"solo-test-{os.getpid()}-{time.monotonic_ns()}", folder / "triton.log"
    command = [
        str(_package() / "tritonserver" / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={_backends(folder)}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
    ]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command, env=_environment(python, environment or {}), stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield Running(f"127.0.0.1:{port}", log_file, process)
    finally:
        _end(process)
        for region in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108 - the back end's own
            region.unlink(missing_ok=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL to the group: the server and its Python processes."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(running: Running) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise RuntimeError(f"tritonserver ended:\n{running.log}")
        try:
            if httpx.get(f"http://{running.address}/v2/health/ready", timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"tritonserver is not ready after {START_SECONDS} s:\n{running.log}")


def _package() -> Path:
    """The folder of the package `pytriton`, which is not imported."""
    spec = find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise RuntimeError("nvidia-pytriton is not installed: make test-triton")
    return Path(spec.origin).parent


def _backends(folder: Path) -> Path:
    """A copy of the Python back end with the program for this version of Python, as PyTriton makes one."""
    server, copy = _package() / "tritonserver", folder / "backends"
    if not copy.exists():
        shutil.copytree(server / "backends", copy)
        stub = (
            server
            / "python_backend_stubs"
            / f"{sys.version_info[0]}.{sys.version_info[1]}"
            / "triton_python_backend_stub"
        )
        shutil.copy(stub, copy / "python" / stub.name)
        (copy / "python" / stub.name).chmod(0o755)
        (server / "bin" / "tritonserver").chmod(0o755)
    return copy


def _environment(python: Path | None, more: Mapping[str, str]) -> dict[str, str]:
    """The back end takes the environment of the `python3` that is first in PATH."""
    libraries = [str(_package().parent / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    return {
        "PATH": f"{python or Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": os.environ.get("HOME", "/"),
        "LD_LIBRARY_PATH": ":".join(libraries),
        **more,
    }
