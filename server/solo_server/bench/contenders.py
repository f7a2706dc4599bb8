"""Turns `--model` and `--peer` into the processes to measure, with the setup that each one gets."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from solo_models.bundle import Bundle, read_bundle
from solo_models.install import install_command

from solo_server.bench.contender_process import LaunchSpec
from solo_server.bench.errors import BenchError
from solo_server.bench.open_model import Model
from solo_server.bench.protocol import WorkerSetup
from solo_server.system.cores import cores

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp"})  # those of `solo segment`
PLAIN_PEER_NEEDS = ("torch", "onnx", "pycocotools", "cv2")


@dataclass(frozen=True, slots=True)
class Workload:
    """What every contender runs. worker: the module that runs our models; setup: images, or batches."""

    worker: str
    setup: WorkerSetup


@dataclass(frozen=True, slots=True)
class ContenderChoice:
    """The contenders of one measurement. bundle: of the first model; the peers use its specification."""

    bundle: Bundle
    models: tuple[Model, ...]
    peers: tuple[str, ...]
    peer_python: str | None
    checkpoint: Path | None
    threads: int

    @classmethod
    def read(cls, arguments: argparse.Namespace) -> ContenderChoice:
        """Validate the arguments before anything is loaded.

        Raises:
            BenchError: an unknown engine, or a peer whose requirements are missing.
            BundleError: the first bundle cannot be read.
        """
        models = tuple(Model.parse(text) for text in arguments.model or [""])
        peers = tuple(dict.fromkeys(arguments.peer))
        checkpoint = arguments.checkpoint
        if peers and checkpoint is None:
            raise BenchError(f"--peer {peers[0]} needs --checkpoint: the weights of the first model in mmdet's layout")
        if checkpoint is not None and not checkpoint.is_file():
            raise BenchError(f"{checkpoint}: no such file")
        if "plain-onnx" in peers and not all(importlib.util.find_spec(name) for name in PLAIN_PEER_NEEDS):
            raise BenchError(f"--peer plain-onnx needs: {install_command('export', 'opencv-python-headless')}")
        if "reference" in peers and arguments.peer_python is None:
            raise BenchError("--peer reference needs --peer-python: the interpreter of an environment with mmdet")
        return cls(read_bundle(models[0].bundle), models, peers, arguments.peer_python, checkpoint, arguments.threads)

    def launch_specs(self, workload: Workload) -> list[LaunchSpec]:
        """How to start each contender: our models first, each group in the order given."""
        ours = [self._model(model, workload) for model in self.models]
        return [*ours, *(self._peer(peer, workload) for peer in self.peers)]

    def _model(self, model: Model, workload: Workload) -> LaunchSpec:
        command = (sys.executable, "-m", workload.worker)
        setup = {**model.to_setup(), "threads": self.threads, **workload.setup}
        return LaunchSpec(command, setup, os.environ, role=model.bundle.name)

    def _peer(self, peer: str, workload: Workload) -> LaunchSpec:
        setup = {
            "spec": self.bundle.spec.to_dict(),
            "checkpoint": str(self.checkpoint),
            "threads": self.threads or cores(),
            **workload.setup,
        }
        return LaunchSpec(self._peer_command(peer), setup, with_blas_threads(setup["threads"]), role=f"--peer {peer}")

    def _peer_command(self, peer: str) -> tuple[str, ...]:
        if peer == "plain-onnx":
            return (sys.executable, "-m", "solo_export.peers.plain_onnx")
        return (self.peer_python or sys.executable, str(package_folder("solo_export") / "peers" / "reference.py"))


def with_blas_threads(threads: int) -> dict[str, str]:
    """The environment of a process whose OpenBLAS uses `threads` cores, and does not spin while idle.

    solo_server sets one thread for its own post-processing. By default OpenBLAS spins for a tenth of a second after each product,
    which would slow the next contender.
    """
    return {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "OPENBLAS_THREAD_TIMEOUT": "4"}


def find_images(paths: list[Path]) -> list[Path]:
    """Absolute paths of the images: files as given; for a folder the images in it, by suffix, sorted.

    Raises:
        BenchError: a path does not exist, or a folder has no image.
    """
    return [image.absolute() for path in paths for image in _expand(path)]


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        files = (file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
        if images := sorted(file for file in files if file.is_file()):
            return images
        raise BenchError(f"{path}: no image in this folder ({', '.join(sorted(SUFFIXES))})")
    if not path.is_file():
        raise BenchError(f"{path}: no such file or folder")
    return [path]


def package_folder(name: str) -> Path:
    """The folder of a package, without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise BenchError(f"{name} is not installed; it contains the peers")
    return Path(next(iter(found.submodule_search_locations)))
