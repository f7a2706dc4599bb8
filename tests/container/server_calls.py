"""Sends requests to a server in a container, which uses the host's network."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from container import Container, running
from image_builder import Image


@contextmanager
def serving(image: Image, **options: Any) -> Iterator[tuple[Container, str, float]]:
    """A ready container, its URL, and the seconds until it was ready. options: those of `running`."""
    port = free_port()
    with running(image, SOLO_PORT=str(port), **options) as container:
        url = f"http://127.0.0.1:{port}"
        yield container, url, wait_until_ready(container, url)


def ended(image: Image, *arguments: str, **options: Any) -> tuple[int, list[str]]:
    """Exit status and log lines of a container that exits by itself."""
    with running(image, *arguments, **options) as container:
        status = container.process.wait(120)
    return status, container.log_lines


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], bool], container: Container, seconds: float = 120) -> None:
    """Wait for a condition. Raises RuntimeError with the log if the container exits before, or after the time limit."""
    end = time.monotonic() + seconds
    while not condition():
        if container.process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("".join(container.log_lines))
        time.sleep(0.02)


def wait_until_ready(container: Container, url: str, seconds: float = 120) -> float:
    """Wait until `/readyz` returns 200; the seconds it took."""
    start = time.perf_counter()
    until(lambda: _is_ready(url), container, seconds)
    return time.perf_counter() - start


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
