"""A stand-in for the official Python base image, made of Debian's packages, and the Dockerfile's targets built over it by buildah.

No container engine and no image registry is needed; root, and Debian's packages, are. What the stand-in cannot show is what only
the official image has.
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
cd "$(dirname "$1")" && mkdir -p debian && mount -t tmpfs tmpfs debian # in memory, since dpkg waits for every write to a disk
debootstrap --variant=minbase --include={PACKAGES} bookworm "$PWD/debian"
tar --directory=debian --create --file="$1" .
"""
"""Into an archive; in a mount namespace of its own, with which all mounts go, however it ends."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SEARCHED = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
VARIABLES = {
    "PATH": SEARCHED,
    "PIP_CERT": CERTIFICATES,
    "SSL_CERT_FILE": CERTIFICATES,
    "PIP_RETRIES": "10",
    "PIP_DEFAULT_TIMEOUT": "60",
}
"""Of the stand-in: the official base has a search path alone."""
ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot", "DEBIAN_FRONTEND": "noninteractive"}
STORE = Path("/var/lib/containers/solo-image-test")
"""Apart from the machine's own images, among which the stand-in would pass for the official base. buildah keeps a mount there."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image. tag: its name; root: its files, as a container would begin with them; config: what its builder wrote."""

    tag: str
    root: Path
    config: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """Its variables."""
        return dict(line.split("=", 1) for line in self.config["Env"])


def make_base(folder: Path) -> str:
    """Put the stand-in where the Dockerfile's FROM looks for the base, unless it is there; its name."""
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
    """Run a command over it, as every RUN of a Dockerfile does; raises `RuntimeError`."""
    container = buildah("from", "--pull-never", BASE).strip()
    try:
        buildah("run", "--isolation=chroot", container, "--", "python", "-c", "")
    finally:
        buildah("rm", container)


def build(target: str, *options: str) -> None:
    """Build one target of the real Dockerfile, in Docker's format: OCI's has no health check."""
    command = ["bud", "--isolation=chroot", "--pull-never", "--layers", "--format=docker", f"--target={target}"]
    twice(lambda: buildah(*command, *options, f"--tag={_tag(target)}", str(ROOT), told=True))


@contextmanager
def laid_out(target: str) -> Iterator[Image]:
    """An image that was built, with its files in a folder."""
    tag = _tag(target)
    described = json.loads(buildah("inspect", "--type", "image", tag))
    container = buildah("from", "--pull-never", tag).strip()
    try:
        yield Image(tag, Path(buildah("mount", container).strip()), described["Docker"]["config"])
    finally:
        buildah("rm", container)


def size_bytes(image: Image) -> tuple[int, int]:
    """Bytes of the base's layers, and of those above it, unpacked."""
    layers = json.loads(json.loads(buildah("inspect", "--type", "image", image.tag))["Manifest"])["layers"]
    base = json.loads(json.loads(buildah("inspect", "--type", "image", BASE))["Manifest"])["layers"]
    return sum(layer["size"] for layer in base), sum(layer["size"] for layer in layers[len(base) :])


def buildah(*words: str, told: bool = False) -> str:
    """What `run` returns of buildah with a store of its own."""
    return run("buildah", f"--root={STORE}", f"--runroot={STORE}/run", *words, told=told)


def run(*command: str, told: bool = False) -> str:
    """Standard output of a command that has to succeed. told: what it says goes to the terminal instead."""
    kept = None if told else subprocess.PIPE
    done = subprocess.run(command, stdout=kept, stderr=kept, text=True, env=ENVIRONMENT, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stderr or ''}")
    return done.stdout or ""


def twice(step: Callable[[], object]) -> None:
    """Something that downloads, and is tried again once where it fails."""
    try:
        step()
    except RuntimeError as problem:
        print(f"\n*** once more, since downloads fail now and then: {problem}\n", file=sys.stderr, flush=True)
        step()


def _resemble(debian: Path) -> None:
    """Do what makes Debian's Python more like that of the official base."""
    (debian / "usr/bin/python").symlink_to("python3")
    for marker in debian.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    for package in debian.glob("var/cache/apt/archives/*.deb"):
        package.unlink()
    shutil.copy(CERTIFICATES, debian / CERTIFICATES.lstrip("/"))  # of a network whose proxy has its own


def _tag(target: str) -> str:
    return f"localhost/solo-image-test:{target}"


def _is_built(tag: str) -> bool:
    return tag in buildah("images", "--format={{.Name}}:{{.Tag}}").splitlines()
