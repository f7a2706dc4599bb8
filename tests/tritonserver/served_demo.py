"""Repositories of the demo model, and our own server with it; benchmarks/triton.py uses them too."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from solo_export.triton import Network, RepositoryRequest, write_repository
from solo_models.demo import demo_bundle
from triton_server import free_port

MODEL = "demo-person"
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


@contextmanager
def our_server(folder: Path) -> Iterator[str]:
    """Host and port of `solo serve` with the demo model. folder: for its log."""
    port, log_file = free_port(), folder / "solo.log"
    command = [str(Path(sys.executable).with_name("solo")), "serve", "--port", str(port)]
    with log_file.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            while not _is_ready(port):
                if process.poll() is not None:
                    raise RuntimeError(log_file.read_text())
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
