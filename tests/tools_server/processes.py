"""Servers as processes of their own: ours, and Label Studio's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

BIN = Path(os.environ["SOLO_TEST_BIN"])
BUNDLE = os.environ["SOLO_TEST_BUNDLE"]
START_SECONDS = 600


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], ready_url: str, log: Path) -> Iterator[None]:
    """A process, from the moment when `ready_url` answers 200 until the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=dict(environment), stdout=out, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        _wait(process, ready_url, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def solo(folder: Path, *arguments: str, port: int | None = None, **settings: str) -> Iterator[str]:
    """`solo serve`, and its URL. settings: environment variables."""
    port = free_port() if port is None else port
    url = f"http://127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOLO_")} | settings
    command = [str(BIN / "solo"), "serve", "--port", str(port), *arguments]
    with running(command, environment, f"{url}/readyz", folder / f"solo-{port}.log"):
        yield url


@contextmanager
def label_studio(folder: Path, user: str, password: str, token: str) -> Iterator[str]:
    """Label Studio with a database of its own in `folder`, and its URL. It calls nobody else."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SOLO_", "PYTHONPATH"))}
    environment |= {"HOME": str(folder), "LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
    environment |= {"COLLECT_ANALYTICS": "0", "LATEST_VERSION_CHECK": "0", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}
    environment |= {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false"}  # the backend is on this machine
    command = [str(Path(sys.executable).with_name("label-studio")), "start", "--no-browser", "--data-dir", str(folder)]
    command += ["--port", str(port), "--internal-host", "127.0.0.1", "--username", user, "--password", password]
    command += ["--user-token", token, "--enable-legacy-api-token"]
    with running(command, environment, f"{url}/health", folder / "label-studio.log"):
        yield url


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended: {log.read_text(errors='replace')[-2000:]}")
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{url} did not answer: {log.read_text(errors='replace')[-2000:]}")
