"""Builds the images that the tests beside this file look at: python build.py TARGET... ; says NOT RUN, status 3, where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from standin import build, make_base, run

TOOLS = ("buildah", "debootstrap")
NOT_RUN = 3


def main(targets: list[str]) -> int:
    """Exit status 0, or 3 where this machine cannot build images."""
    if reason := _why_not():
        print(f"\n*** IMAGES WERE NOT TESTED: NOT RUN: {reason} ***\n", file=sys.stderr)
        return NOT_RUN
    _install_tools()
    with tempfile.TemporaryDirectory() as folder:
        make_base(Path(folder))
    for target in targets:
        build(target, *(_torch_flags() if target == "export" else ()), "--build-arg=REVISION=0123456789abcdef")
    return 0


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
    return [*(f"--volume={folder}:{folder}:ro" for folder in folders), f"--build-arg=TORCH_FLAGS={' '.join(flags).strip()}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
