"""Builds the images that the tests beside this file look at; says NOT RUN, with status 3, where it cannot.

python build.py TARGET...
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "gpu_packages"))

from standin import build, make_base, run

TOOLS = ("buildah", "debootstrap")
NOT_RUN = 3
TENSORRT = {"gpu": "10.4.0", "gpu-modern": "10.16.1.11"}


def main(targets: list[str]) -> int:
    """Exit status 0, or 3 where this machine cannot build images."""
    if reason := _why_not():
        print(f"\n*** IMAGES WERE NOT TESTED: NOT RUN: {reason} ***\n", file=sys.stderr)
        return NOT_RUN
    _install_tools()
    with tempfile.TemporaryDirectory() as folder:
        make_base(Path(folder))
        for target in targets:
            build(target, *_flags(target, Path(folder)), "--build-arg=REVISION=0123456789abcdef")
    return 0


def _flags(target: str, folder: Path) -> list[str]:
    if target == "export":
        return _torch_flags()
    if target in TENSORRT:
        from stub_tensorrt import make_index

        make_index(folder / target, TENSORRT[target])
        return [f"--volume={folder / target}:/standin-index:ro", "--build-arg=TENSORRT_INDEX=file:///standin-index"]
    return []


def _why_not() -> str | None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        return "not root"
    if missing and shutil.which("apt-get") is None:
        return f"no {' and no '.join(missing)}, and no apt-get to install it"
    return None


def _install_tools() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        print(f"installing {', '.join(missing)} by apt-get", flush=True)
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", *missing)


def _torch_flags() -> list[str]:
    """Options of a build that let it look where this machine's pip looks: so CPU builds of torch are found."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.find-links"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)  # status 1: there is none
    folders = [folder for folder in told.stdout.split() if Path(folder).is_dir()]
    flags = [os.environ.get("TORCH_FLAGS", ""), *(f"--find-links {folder}" for folder in folders)]
    return [
        *(f"--volume={folder}:{folder}:ro" for folder in folders),
        f"--build-arg=TORCH_FLAGS={' '.join(flags).strip()}",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
