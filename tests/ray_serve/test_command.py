"""`solo serve --ray` as an operator sees it: each failure is one line and a documented exit status."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from load import PNG
from solo_server.exit_codes import NO_CLUSTER, REFUSED
from two_nodes import free_port, wait_until

BUNDLE = str(Path(os.environ["TEST_BUNDLES"], "solo").absolute())
SOLO = [sys.executable, "-m", "solo_models.cli", "serve", "--ray"]


def _refused(*arguments: str) -> tuple[int, str]:
    """Exit status, and the last line of standard error."""
    ended = subprocess.run([*SOLO, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in ended.stderr.split("solo serve:")[-1]
    return ended.returncode, [line for line in ended.stderr.splitlines() if line.startswith("solo serve:")][-1]


@contextmanager
def _serving(log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server that is ready, and its port."""
    port = free_port()
    with log.open("w") as output:
        process = subprocess.Popen([*SOLO, BUNDLE, "--threads", "1", "--port", str(port)], stdout=output, stderr=output)
        try:
            wait_until(lambda: process.poll() is not None or log.read_text().rstrip().endswith("ready"), 120)
            yield process, port
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def test_it_serves_until_sigterm_and_ends_with_status_0(tmp_path: Path) -> None:
    with _serving(tmp_path / "log") as (process, port):
        answer = httpx.post(f"http://127.0.0.1:{port}/segment", content=PNG, timeout=60)
        process.terminate()
        assert (answer.status_code, process.wait(60)) == (200, 0)


def test_it_ends_with_one_line_when_the_head_of_its_cluster_has_ended(tmp_path: Path) -> None:
    with _serving(tmp_path / "log") as (process, _):
        (head,) = [one for one in psutil.Process(process.pid).children(recursive=True) if "gcs_server" in one.name()]
        head.kill()
        assert process.wait(60) == NO_CLUSTER
    assert "solo serve: the head of the Ray cluster has ended" in (tmp_path / "log").read_text()


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
