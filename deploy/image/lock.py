"""Writes `locks/`: all packages of each container image, with versions and hashes. `make locks` runs it after version changes.

Versions are those of constraints.txt. Hashes are of every file of a release, so that a lock works on every platform. torch is in
none: its CPU builds have other hashes.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
OF_CUDA = ("nvidia-cublas-cu12", "nvidia-cuda-runtime-cu12", "nvidia-cufft-cu12", "nvidia-curand-cu12")
OF_TORCH = ("filelock", "fsspec", "jinja2", "networkx", "sympy", "typing-extensions")
EXTRAS: dict[str, tuple[str, ...]] = {
    "cpu": ("server", "client", "otel"),
    "gpu": ("gpu", "client", "otel"),
    "gpu-modern": ("gpu", "client", "otel"),
    "export": ("export",),
    "tools": (),
}
BESIDE: dict[str, tuple[str, ...]] = {
    "cpu": (),
    "gpu": (
        "onnxruntime-gpu==1.20.2",
        "nvidia-cudnn-cu12==9.10.2.21",
        *OF_CUDA,
    ),  # the last of both with kernels for sm_70
    "gpu-modern": ("onnxruntime-gpu==1.26.0", "nvidia-cudnn-cu12", *OF_CUDA),
    "export": OF_TORCH,
    "tools": ("cyclonedx-bom==7.5.0", "hatchling"),
}
REPLACED = {"gpu": "onnxruntime", "gpu-modern": "onnxruntime", "export": "torch"}
OPTIONS = (
    "--quiet",
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-annotate",
    "--no-header",
)


def main() -> None:
    """Write every lock file again."""
    for target in EXTRAS:
        lock = ROOT / "deploy/image/locks" / f"{target}.txt"
        done = subprocess.run(
            _command(), input=_requirements(target), capture_output=True, text=True, check=False, cwd=ROOT
        )
        if done.returncode != 0:
            sys.exit(f"{target}: {done.stderr}")
        lock.write_text(done.stdout)


def _command() -> list[str]:
    return [str(Path(sys.executable).with_name("uv")), "pip", "compile", *OPTIONS, "--constraint=constraints.txt", "-"]


def _requirements(target: str) -> str:
    """The requirements of an image, one per line, without this package and without replaced ones."""
    lines = {*BESIDE[target]}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    todo = list(EXTRAS[target])
    while todo:
        for line in extras[todo.pop()]:
            if line.startswith("solo-inference["):
                todo.append(line.removeprefix("solo-inference[").removesuffix("]"))
            elif not line.startswith(f"{REPLACED.get(target)}>"):
                lines.add(line)
    return "\n".join(sorted(lines)) + "\n"


if __name__ == "__main__":
    main()
