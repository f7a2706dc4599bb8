"""Where engines and cubins are kept between starts, and how processes that would make the same one wait for each other.

Whatever is kept here can be made again: files are written atomically, and a reader that finds one damaged makes it anew.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from solo_models.atomic_file import atomic_write

from solo_server.system.user_cache import user_cache

VARIABLE = "SOLO_CACHE"
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # of file systems over a network

LOG = logging.getLogger("solo_server")


def cache_folder(chosen: Path | None = None) -> Path:
    """`chosen`, else `SOLO_CACHE`, else `solo` in the user's cache folder; not made yet.

    Where the user has none, a temporary folder of this process alone: what is made there is made anew at the next start.
    """
    given = chosen or os.environ.get(VARIABLE)
    if given:
        return Path(given)
    users = user_cache()
    return _temporary() if users is None else users / "solo"


@cache
def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="solo-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    LOG.warning("this user has no home folder: engines are kept in %s, until this process ends (SOLO_CACHE)", folder)
    return folder


def warn_where_open(folder: Path) -> None:
    """Engines and kernels are code, which is run as it lies there: say so where every user may put some into the folder."""
    if folder.is_dir() and folder.stat().st_mode & stat.S_IWOTH:
        LOG.warning(
            "every user may write %s, and what lies there is run: keep engines where only trusted users write", folder
        )


def write_atomically(path: Path, *parts: bytes) -> None:
    """Write `parts`, one after the other, as one file; readers see all of it or none. The umask says who they are.

    Raises:
        OSError: the folder cannot be written; nothing is left behind.
    """
    with atomic_write(path) as scratch, scratch.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def locked(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of `path` (in a file of its own beside it) against every other process and thread.

    waiting: told once, in words, where another holds it. The lock ends with its process, however that ends, and its file stays:
    were it removed, two could hold locks on files of one name. A file system without locks is worked on without: files are written
    at once, so that the worst is that two make the same one.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("a+") as file:
        _take(file, path.name, waiting)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _take(file: IO[str], name: str, waiting: Callable[[str], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        waiting(f"waiting for {name}, which process {file.read() or 'unknown'} is making")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as problem:
        if problem.errno not in NO_LOCKS:
            raise
        LOG.warning("%s is made without a lock, which its file system has not: %s", name, problem)
