"""Builds the images that the tests beside this file look at; says NOT RUN, with status 3, where it cannot.

python build.py TARGET...      # without a target: only what all of them need
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

from standin import ENVIRONMENT, build, check_base, make_base, run, twice
from support.not_run import append

NOT_RUN_TOLD = """
{stars}
*** IMAGES WERE NOT TESTED. NOT RUN: {reason}
*** docs/container.md says what they need. All else that was asked for may be green; this is not.
{stars}
"""
TOOLS = ("buildah", "debootstrap")
NOT_RUN = 3
TENSORRT = {"gpu": "10.4.0", "gpu-modern": "10.16.1.11"}


def main(targets: list[str]) -> int:
    """Exit status 0, or 3 where this machine cannot build images.

    Raises:
        RuntimeError: it can, and a build fails.
    """
    if reason := _why_not() or _why_no_base():
        print(NOT_RUN_TOLD.format(stars="*" * 100, reason=reason), file=sys.stderr, flush=True)
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
        place = f"/standin-index-{EDITION}"
        return [f"--volume={folder / target}:{place}:ro", f"--build-arg=TENSORRT_INDEX=file://{place}"]
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
            f"nothing may be mounted here, or no namespace made: {getattr(problem, 'stderr', None) or problem}".strip()
        )
    return None


def _why_no_base() -> str | None:
    """Make it, with all that it takes: Debian's packages may be out of reach, or buildah not at work on such a system."""
    try:
        _install_tools()
        with tempfile.TemporaryDirectory() as folder:
            make_base(Path(folder))
        check_base()
    except RuntimeError as problem:
        return f"the base cannot be made of Debian's packages, or nothing runs over it: {problem}"
    return None


def _missing() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def _install_tools() -> None:
    if missing := _missing():
        print(f"installing {', '.join(missing)} by apt-get", flush=True)
        apt = ("apt-get", "-qq", "-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=300")
        subprocess.run(
            [*apt, "update"], env=ENVIRONMENT, check=False
        )  # some other list may fail, which costs us nothing
        twice(lambda: run(*apt, "install", "-y", *missing))


def _torch_flags() -> list[str]:
    """Options of a build that let it look where this machine's pip looks: so CPU builds of torch are found."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.find-links"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)  # status 1: there is none
    places = dict.fromkeys([*told.stdout.split(), *os.environ.get("PIP_FIND_LINKS", "").split()])
    folders = [place for place in places if Path(place).is_dir()]
    flags = [os.environ.get("TORCH_FLAGS", ""), *(f"--find-links {folder}" for folder in folders)]
    return [
        *(f"--volume={folder}:{folder}:ro" for folder in folders),
        f"--build-arg=TORCH_FLAGS={' '.join(flags).strip()}",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
