"""A stand-in for the official Python base image, built from Debian's packages; buildah builds the Dockerfile's targets on it.

This needs root and Debian's packages, but no container engine and no image registry. Features of the official image are not tested.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.11-slim-bookworm"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
INSTALL_DEBIAN = f"""
set -eu
cd "$(dirname "$1")" && mkdir -p debian && mount -t tmpfs tmpfs debian # in memory, since dpkg syncs every write to disk
debootstrap --variant=minbase --include={PACKAGES} bookworm "$PWD/debian"
tar --directory=debian --create --file="$1" .
"""
"""Creates an archive, in its own mount namespace, whose mounts end with it."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SEARCHED = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
VARIABLES = {
    "PATH": SEARCHED,
    "PIP_CERT": CERTIFICATES,
    "SSL_CERT_FILE": CERTIFICATES,
    "PIP_RETRIES": "10",
    "PIP_DEFAULT_TIMEOUT": "60",
}
"""The stand-in's variables; the official base sets only a search path."""
ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot", "DEBIAN_FRONTEND": "noninteractive"}
STORE = Path("/var/lib/containers/solo-image-test")
"""Separate from the machine's own store, in which the stand-in would replace the official base. buildah keeps a mount there."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built container image. tag: its name; root: its files, mounted; config: from the builder."""

    tag: str
    root: Path
    config: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """The image's environment variables."""
        return dict(line.split("=", 1) for line in self.config["Env"])


def make_base(folder: Path) -> str:
    """Build the stand-in under the name in the Dockerfile's FROM, unless it exists; its name."""
    if _is_built(BASE):
        return BASE
    archive = folder / "debian.tar"
    twice(lambda: run("unshare", "--mount", "--propagation=private", "sh", "-c", INSTALL_DEBIAN, "sh", str(archive)))
    container = buildah("from", "scratch").strip()
    buildah("add", "-q", container, str(archive), "/")
    archive.unlink()
    _resemble(Path(buildah("mount", container).strip()))
    buildah("unmount", container)
    buildah("config", *(f"--env={name}={value}" for name, value in VARIABLES.items()), container)
    buildah("commit", "-q", "--rm", container, BASE)
    return BASE


def check_base() -> None:
    """Run a command in the base, as every RUN of a Dockerfile does. Raises RuntimeError."""
    container = buildah("from", "--pull-never", BASE).strip()
    try:
        buildah("run", "--isolation=chroot", container, "--", "python", "-c", "")
    finally:
        buildah("rm", container)


def build(target: str, *options: str) -> None:
    """Build one target of the Dockerfile, in Docker's format, since OCI's has no health check."""
    command = ["bud", "--isolation=chroot", "--pull-never", "--layers", "--format=docker", f"--target={target}"]
    twice(lambda: buildah(*command, *options, f"--tag={_tag(target)}", str(ROOT), to_terminal=True))


@contextmanager
def laid_out(target: str) -> Iterator[Image]:
    """A built image, with its files mounted."""
    tag = _tag(target)
    described = json.loads(buildah("inspect", "--type", "image", tag))
    container = buildah("from", "--pull-never", tag).strip()
    try:
        yield Image(tag, Path(buildah("mount", container).strip()), described["Docker"]["config"])
    finally:
        buildah("rm", container)


def size_bytes(image: Image) -> tuple[int, int]:
    """Unpacked bytes of the base's layers, and of the layers above."""
    layers = json.loads(json.loads(buildah("inspect", "--type", "image", image.tag))["Manifest"])["layers"]
    base = json.loads(json.loads(buildah("inspect", "--type", "image", BASE))["Manifest"])["layers"]
    return sum(layer["size"] for layer in base), sum(layer["size"] for layer in layers[len(base) :])


def buildah(*words: str, to_terminal: bool = False) -> str:
    """`run` for buildah with a separate store."""
    return run("buildah", f"--root={STORE}", f"--runroot={STORE}/run", *words, to_terminal=to_terminal)


def run(*command: str, to_terminal: bool = False) -> str:
    """Standard output of a command. Raises RuntimeError if it fails. to_terminal: print the output instead of returning it."""
    captured = None if to_terminal else subprocess.PIPE
    done = subprocess.run(command, stdout=captured, stderr=captured, text=True, env=ENVIRONMENT, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stderr or ''}")
    return done.stdout or ""


def twice(step: Callable[[], object]) -> None:
    """Run a step that downloads; retry it once if it fails."""
    try:
        step()
    except RuntimeError as problem:
        print(f"\n*** retrying once, since downloads fail occasionally: {problem}\n", file=sys.stderr, flush=True)
        step()


def _resemble(debian: Path) -> None:
    """Make Debian's Python more like that of the official base."""
    (debian / "usr/bin/python").symlink_to("python3")
    for marker in debian.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    for package in debian.glob("var/cache/apt/archives/*.deb"):
        package.unlink()
    shutil.copy(CERTIFICATES, debian / CERTIFICATES.lstrip("/"))  # for networks whose proxy has its own certificate


def _tag(target: str) -> str:
    return f"localhost/solo-image-test:{target}"


def _is_built(tag: str) -> bool:
    return tag in buildah("images", "--format={{.Name}}:{{.Tag}}").splitlines()
