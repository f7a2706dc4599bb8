"""Builds the container images for the tests in this folder; prints NOT RUN, with exit status 3, if that is impossible.

python build.py TARGET...      # without a target: only the base image
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "gpu_packages"))

sys.path.append(str(Path(__file__).parents[1]))

from image_builder import ENVIRONMENT, build, check_base, make_base, run, twice
from support.not_run import append

NOT_RUN_MESSAGE = """
{stars}
*** CONTAINER IMAGES WERE NOT TESTED. NOT RUN: {reason}
*** docs/container.md lists the requirements. Other tests may have passed; these did not run.
{stars}
"""
TOOLS = ("buildah", "debootstrap")
NOT_RUN = 3
TENSORRT = {"gpu": "10.4.0", "gpu-modern": "10.16.1.11"}


def main(targets: list[str]) -> int:
    """Exit status 0, or 3 if this machine cannot build container images.

    Raises:
        RuntimeError: a build failed.
    """
    if reason := _why_not() or _why_no_base():
        print(NOT_RUN_MESSAGE.format(stars="*" * 100, reason=reason), file=sys.stderr, flush=True)
        append([f"images (docs/container.md says what they need): {reason}"])
        return NOT_RUN
    with tempfile.TemporaryDirectory() as folder:
        for target in targets:
            build(target, *_flags(target, Path(folder)), "--build-arg=REVISION=0123456789abcdef")
    return 0


def _flags(target: str, folder: Path) -> list[str]:
    if target == "export":
        return _torch_flags()
    if target in TENSORRT:
        from stub_tensorrt import EDITION, make_index

        make_index(folder / target, TENSORRT[target])
        index = f"/standin-index-{EDITION}"
        return [f"--volume={folder / target}:{index}:ro", f"--build-arg=TENSORRT_INDEX=file://{index}"]
    return []


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "not root"
    missing = _missing()
    if missing and shutil.which("apt-get") is None:
        return f"no {' and no '.join(missing)}, and no apt-get to install it"
    namespaces = ("--mount", "--propagation=private", "--pid", "--fork")
    isolated = ["unshare", *namespaces, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        subprocess.run(isolated, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        return (
            f"mounting or creating namespaces is not permitted: {getattr(problem, 'stderr', None) or problem}".strip()
        )
    return None


def _why_no_base() -> str | None:
    """Make the base: Debian's packages may be unreachable, or buildah may not work on this system."""
    try:
        _install_tools()
        with tempfile.TemporaryDirectory() as folder:
            make_base(Path(folder))
        check_base()
    except RuntimeError as problem:
        return f"the base cannot be built from Debian's packages, or cannot run a command: {problem}"
    return None


def _missing() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def _install_tools() -> None:
    if missing := _missing():
        print(f"installing {', '.join(missing)} by apt-get", flush=True)
        apt = ("apt-get", "-qq", "-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=300")
        subprocess.run([*apt, "update"], env=ENVIRONMENT, check=False)  # failures of other package lists do not matter
        twice(lambda: run(*apt, "install", "-y", *missing))


def _torch_flags() -> list[str]:
    """Build options that let pip search where this machine's pip searches, so that CPU builds of torch are found."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.find-links"]
    configured = subprocess.run(command, capture_output=True, text=True, check=False)  # status 1: not set
    places = dict.fromkeys([*configured.stdout.split(), *os.environ.get("PIP_FIND_LINKS", "").split()])
    folders = [place for place in places if Path(place).is_dir()]
    flags = [os.environ.get("TORCH_FLAGS", ""), *(f"--find-links {folder}" for folder in folders)]
    return [
        *(f"--volume={folder}:{folder}:ro" for folder in folders),
        f"--build-arg=TORCH_FLAGS={' '.join(flags).strip()}",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
