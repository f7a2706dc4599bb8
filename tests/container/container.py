"""Runs a process in a container image's files, isolated like `docker run --read-only --cap-drop ALL --network host`.

It is process 1 of its own process namespace. Its root is read-only, user and environment are the image's, and it cannot gain
privileges. The image's volume /cache is writable, as in Docker, unless a test says otherwise.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from image_builder import Image

ENTER = r"""
set -eu
root=$1; shift
mount --bind "$root" "$root"
for mount in $MOUNTS; do mount --bind "${mount%%:*}" "$root${mount#*:}"; done
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom; do touch "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777,size=64m tmpfs "$root/dev/shm"
mount -o remount,ro "$root/dev"
exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid \
    chroot --userspec="$RUN_AS" --groups= "$root" /usr/bin/env -i -C "$RUN_IN" "$@"
"""


@dataclass(slots=True)
class Container:
    """A running container. log_lines: lines of its standard error so far."""

    process: subprocess.Popen[str]
    log_lines: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Process id of its first process, on the host."""
        (child,) = self._children()
        return child

    def _children(self) -> list[int]:
        return [int(c) for c in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def stop(self) -> int:
        """Like `docker stop`: SIGTERM to the first process; its exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """Kill its first process, which ends all others and `unshare`."""
        if self.process.poll() is None:
            for child in self._children():
                os.kill(child, signal.SIGKILL)
            self.process.kill()
        self.process.wait(60)

    def peak_bytes(self) -> int:
        """Peak resident memory of its first process; 0 before it starts and after it has exited."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except (OSError, ValueError):  # the child has not started, or has exited
            return 0
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@contextmanager
def running(
    image: Image,
    *arguments: str,
    cache: Path | None = None,
    mounts: Mapping[str, Path] | None = None,
    before: Sequence[str] = (),
    entrypoint: Sequence[str] | None = None,
    **environment: str,
) -> Iterator[Container]:
    """Run the image's entry point with `arguments`, by default with its usual ones.

    cache: mounted at /cache, by default a new folder of the image's user; mounts: folders by path in the container; before: a host
    command that runs it, such as `taskset`; entrypoint: replaces the image's and its arguments; environment: added to the image's.
    """
    with tempfile.TemporaryDirectory() as folder:
        if cache is None:
            cache = Path(folder)
            os.chown(folder, *_user(image))
        bound = {"/cache": cache, **(mounts or {})}
        command = entrypoint or [*image.config["Entrypoint"], *(arguments or image.config["Cmd"])]
        with _mount_points(image, bound):
            process = _start(image, command, bound, before, environment)
            container = Container(process)
            reader = threading.Thread(target=lambda: container.log_lines.extend(process.stderr or ()))
            reader.start()
            try:
                yield container
            finally:
                container.kill()
                reader.join()
                if process.stderr is not None:
                    process.stderr.close()


@contextmanager
def _mount_points(image: Image, paths: Iterable[str]) -> Iterator[None]:
    """Create missing mount points, as container engines do, and remove them afterwards."""
    folders = [image.root / path.lstrip("/") for path in paths]
    created = [folder for folder in folders if not folder.exists()]
    for folder in created:
        folder.mkdir()
    try:
        yield
    finally:
        for folder in created:
            folder.rmdir()


def _start(
    image: Image,
    inside: Sequence[str],
    mounts: Mapping[str, Path],
    before: Sequence[str],
    environment: Mapping[str, str],
) -> subprocess.Popen[str]:
    variables = [f"{name}={value}" for name, value in {**image.environment, **environment}.items()]
    outside = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "MOUNTS": " ".join(f"{path}:{place}" for place, path in mounts.items()),
        "RUN_AS": image.config["User"],
        "RUN_IN": image.config["WorkingDir"] or "/",
    }
    isolated = ["unshare", "--mount", "--propagation=private", "--pid", "--fork"]
    command = [*before, *isolated, "sh", "-c", ENTER, "sh", str(image.root), *variables, *inside]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=outside)


def _user(image: Image) -> tuple[int, int]:
    user, group = image.config["User"].split(":")
    return int(user), int(group)
