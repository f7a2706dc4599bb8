"""`solo serve` whose log cannot be written: it serves, counts lost lines, and shuts down normally."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from support.images import encoded, smooth_image
from support.small_app import samples, value

PNG = encoded(smooth_image(90, 120))
LOST = "solo_log_lines_lost_total"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _serving(stderr: int, **environment: str) -> Iterator[tuple["subprocess.Popen[bytes]", httpx.Client]]:
    port = _free_port()
    command = [sys.executable, "-m", "solo_models.cli", "serve", "--port", str(port)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SOLO_")} | environment
    process = subprocess.Popen(command, stderr=stderr, env=clean)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait_until_ready(process, client)
            yield process, client
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", client: httpx.Client) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the server did not become ready within 90 s")


def _check_it_serves_and_ends(process: "subprocess.Popen[bytes]", client: httpx.Client) -> None:
    assert client.post("/segment", content=PNG).status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
def test_with_a_full_disk_it_serves_counts_lost_lines_and_ends_normally() -> None:
    with open("/dev/full", "wb", buffering=0) as full, _serving(full.fileno()) as (process, client):
        assert client.get("/nowhere").status_code == 404
        assert (value(samples(client.get("/metrics").text), LOST) or 0) > 0
        _check_it_serves_and_ends(process, client)


def test_with_a_pipe_that_nobody_reads_it_serves_and_ends_normally() -> None:
    reader, pipe = os.pipe()
    try:
        with _serving(pipe) as (process, client):
            for _ in range(600):  # their lines are more than a pipe's 64 KiB
                assert client.get("/nowhere").status_code == 404
            _check_it_serves_and_ends(process, client)
            os.set_blocking(reader, False)
            written = os.read(reader, 1 << 20)
            assert written.count(b"GET unmatched 404") < 600
            assert written.endswith(b"\n")
    finally:
        os.close(reader)
        os.close(pipe)
