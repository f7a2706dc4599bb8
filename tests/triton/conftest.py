"""Repositories of the demo model, Triton on them, and our own server on the same bundle."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from solo_export.triton import Network, RepositoryRequest, write_repository
from solo_models.demo import demo_bundle
from triton_server import Running, free_port, triton_server

STAND_IN = Path(__file__).with_name("onnx_model.py")


def repository(folder: Path, network: Network = "process", *versions: int) -> Path:
    """A repository of the demo model; with `models`, its graphs run on the stand-in for Triton's ONNX Runtime."""
    for version in versions or (1,):
        write_repository(demo_bundle(), RepositoryRequest(folder / "next", version=version, network=network))
        shutil.copytree(folder / "next", folder / "repository", dirs_exist_ok=True)
        shutil.rmtree(folder / "next")
    for graph in (folder / "repository").glob("*/*/model.onnx"):
        shutil.copy(STAND_IN, graph.with_name("model.py"))
        config = graph.parents[1] / "config.pbtxt"
        config.write_text(config.read_text().replace('backend: "onnxruntime"', 'backend: "python"'))
    return folder / "repository"


@pytest.fixture(scope="session", params=["process", "models"])
def network(request: pytest.FixtureRequest) -> Network:
    chosen: Network = request.param
    return chosen


@pytest.fixture(scope="session")
def triton(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp(network)
    with triton_server(repository(folder, network), folder) as running:
        yield running


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of `solo serve` with the same bundle."""
    port, log_file = free_port(), tmp_path_factory.mktemp("ours") / "log"
    command = [str(Path(sys.executable).with_name("solo")), "serve", "--port", str(port)]
    with log_file.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            while not _is_ready(port):
                if process.poll() is not None:
                    raise RuntimeError(log_file.read_text())
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
