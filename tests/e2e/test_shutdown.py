"""Shutting down, by a signal or a failure: every accepted request is answered, and the exit status says why it ended."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
from support.images import encoded, smooth_image

BODY = encoded(smooth_image(150, 200), "JPEG")
HEAD = f"POST /segment HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {len(BODY)}\r\n\r\n"
SERVER = """
import sys, threading
sys.path[:0] = {paths!r}
from solo_server.pipeline.pipeline import Pipeline
from solo_models.cli import main

def for_ever(*_, **__):
    threading.Event().wait()

{patch}
sys.exit(main(["serve", {bundle!r}, "--port", {port!r}, "--threads", "1"]))
"""
LOADS_FOR_EVER = "Pipeline.open = for_ever"
HANGS = "Pipeline.infer = for_ever"


@contextmanager
def _server(bundle: Path, patch: str = "", **settings: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`solo serve` with a part of it replaced, once it answers."""
    port = str(_free_port())
    code = SERVER.format(paths=[path for path in sys.path if path], bundle=str(bundle), port=port, patch=patch)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SOLO_")} | settings
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment) as process:
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(process.stderr or []))
        reader.start()
        try:
            _until(lambda: _status(f"http://127.0.0.1:{port}/healthz") == 200)
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            reader.join()
    assert not any("Traceback" in line for line in said), "".join(said)


def _status(url: str) -> int | None:
    try:
        return httpx.get(url, timeout=10).status_code
    except httpx.TransportError:
        return None


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepted(url: str) -> socket.socket | None:
    """A connection whose request was accepted (100 Continue); `None` if it was not."""
    host, port = url.removeprefix("http://").split(":")
    try:
        raw = socket.create_connection((host, int(port)), timeout=60)
    except OSError:
        return None
    try:
        raw.sendall(HEAD.encode())
        if raw.recv(4096).startswith(b"HTTP/1.1 100"):
            return raw
    except OSError:
        pass
    raw.close()
    return None


def _answer(raw: socket.socket) -> bytes:
    """Send the body, and return the status line."""
    with raw:
        raw.sendall(BODY)
        return raw.recv(65536).partition(b"\r\n")[0]


def test_every_request_that_was_accepted_under_load_is_answered_after_sigterm(solo_bundle: Path) -> None:
    answers: list[bytes] = []

    def call(url: str) -> None:
        while (raw := _accepted(url)) is not None:
            answers.append(_answer(raw))

    with _server(solo_bundle) as (process, url), ThreadPoolExecutor(12) as pool:
        _until(lambda: _status(f"{url}/readyz") == 200)
        callers = [pool.submit(call, url) for _ in range(12)]
        _until(lambda: len(answers) > 24)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        for caller in callers:
            caller.result()
    assert set(answers) == {b"HTTP/1.1 200 OK"}


def test_a_server_that_loads_its_model_is_not_ready_and_ends_promptly_on_sigterm(solo_bundle: Path) -> None:
    with _server(solo_bundle, LOADS_FOR_EVER) as (process, url):
        ready = httpx.get(f"{url}/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "warming")
        refused = httpx.post(f"{url}/segment", content=BODY)
        assert (refused.status_code, refused.json()["reason"]) == (503, "warming")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_hanging_engine_ends_the_process_with_status_70_after_everything_is_answered(solo_bundle: Path) -> None:
    with _server(solo_bundle, HANGS, SOLO_ENGINE_TIMEOUT_S="1") as (process, url), ThreadPoolExecutor(3) as pool:
        _until(lambda: _status(f"{url}/readyz") == 200)
        answers = [pool.submit(lambda: httpx.post(f"{url}/segment", content=BODY, timeout=30)) for _ in range(3)]
        assert [a.result().json()["reason"] for a in answers] == ["stalled"] * 3
        assert process.wait(10) == 70


def test_requests_that_outlast_the_drain_time_get_503_and_the_process_ends(solo_bundle: Path) -> None:
    with _server(solo_bundle, HANGS, SOLO_DRAIN_SECONDS="1") as (process, url):
        _until(lambda: _status(f"{url}/readyz") == 200)
        accepted = _accepted(url)
        assert accepted is not None
        process.send_signal(signal.SIGTERM)
        assert _answer(accepted) == b"HTTP/1.1 503 Service Unavailable"
        assert process.wait(10) == 0
