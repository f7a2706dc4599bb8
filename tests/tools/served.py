"""`solo serve` in a process of its own, with another interpreter where the tool's environment has no server."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

_STARTS_S = 240  # kernels may have to be compiled


@contextmanager
def serving(python: str, *arguments: str) -> Iterator[str]:
    """The URL of a server on a free port, once it takes images."""
    command = [python, "-m", "solo_models.cli", "serve", "--port", "0", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOLO_")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        url = _url(process)
        reader = threading.Thread(target=lambda: list(process.stderr or []))  # the pipe must not fill up
        reader.start()
        try:
            _wait_until_ready(url)
            yield url
        finally:
            process.terminate()
            reader.join()
    if process.returncode != 0:
        raise RuntimeError(f"the server ended with status {process.returncode}")


def _url(process: subprocess.Popen[str]) -> str:
    said = []
    for line in process.stderr or []:
        said.append(line)
        if match := re.search(r"(http://[\d.]+:\d+)  try:", line):
            return match[1]
    raise RuntimeError("".join(said))


def _wait_until_ready(url: str) -> None:
    end = time.monotonic() + _STARTS_S
    while time.monotonic() < end:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the server did not become ready within {_STARTS_S} s")
