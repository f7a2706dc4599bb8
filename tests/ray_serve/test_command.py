"""`solo serve --ray` as an operator sees it: each failure is one line and a documented exit status."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from load import PNG
from solo_server.exit_codes import NO_CLUSTER, REFUSED
from two_nodes import free_port

BUNDLE = str(Path(os.environ["TEST_BUNDLES"], "solo").absolute())
SOLO = [sys.executable, "-m", "solo_models.cli", "serve", "--ray"]


def _refused(*arguments: str) -> tuple[int, str]:
    """Exit status, and the last line of standard error."""
    ended = subprocess.run([*SOLO, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in ended.stderr.split("solo serve:")[-1]
    return ended.returncode, [line for line in ended.stderr.splitlines() if line.startswith("solo serve:")][-1]


def test_it_serves_until_sigterm_and_ends_with_status_0(tmp_path: Path) -> None:
    port = free_port()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*SOLO, BUNDLE, "--threads", "1", "--port", str(port)], stdout=log, stderr=log)
        end = time.monotonic() + 120
        while not (tmp_path / "log").read_text().rstrip().endswith("ready"):
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            assert time.monotonic() < end
            time.sleep(0.2)
        answer = httpx.post(f"http://127.0.0.1:{port}/segment", content=PNG, timeout=60)
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    assert (answer.status_code, status) == (200, 0)


def test_a_cluster_that_cannot_be_reached_is_one_line() -> None:
    status, line = _refused("--address", f"127.0.0.1:{free_port()}")
    assert status == NO_CLUSTER
    assert line.startswith("solo serve: no Ray cluster at '127.0.0.1:")


def test_a_missing_model_path_is_one_line_with_the_node(tmp_path: Path) -> None:
    status, line = _refused(str(tmp_path / "missing"), "--port", str(free_port()))
    assert status == REFUSED
    assert line.startswith("solo serve: node ")
    assert f"{tmp_path}/missing" in line


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, line = _refused("--port", str(taken.getsockname()[1]))
    assert status == REFUSED
    assert "another process uses this port" in line


def test_no_gpu_is_one_line() -> None:
    status, line = _refused("--engine", "cuda", "--port", str(free_port()))
    assert status == NO_CLUSTER
    assert line == "solo serve: a replica needs 1 GPU, and no node of the Ray cluster has more than 0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--workers", "2"], "replicas take the place of workers"), (["--min-replicas", "-1"], "min_replicas: -1 is not")],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], words: str) -> None:
    status, line = _refused(*arguments)
    assert status == REFUSED
    assert words in line
