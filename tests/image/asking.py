"""Talks to a server in a container, which is on the host's network."""

from __future__ import annotations

import socket
import time

import httpx
from container import Container


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(container: Container, url: str, seconds: float = 120) -> float:
    """Seconds from now until `/readyz` says 200."""
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        if container.process.poll() is not None:
            raise RuntimeError("".join(container.said))
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return time.perf_counter() - start
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise TimeoutError("".join(container.said))
