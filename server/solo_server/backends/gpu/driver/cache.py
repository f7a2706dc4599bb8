"""The cache of engines and cubins, and locks so that two processes do not make the same file.

Everything in the cache can be made again: files are written atomically, and a damaged file is made again by its reader.
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
    """`chosen`, else `SOLO_CACHE`, else `solo` in the user's cache folder; it may not exist yet.

    For a user without a cache folder, a temporary folder of this process: its files are made again at the next start.
    """
    given = chosen or os.environ.get(VARIABLE)
    if given:
        return Path(given)
    folder = user_cache()
    return _temporary() if folder is None else folder / "solo"


@cache
def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="solo-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    LOG.warning("this user has no home folder: engines are kept in %s until this process ends (SOLO_CACHE)", folder)
    return folder


def warn_where_open(folder: Path) -> None:
    """Warn where every user may write into the folder: engines and kernels are code that is run without a check."""
    if folder.is_dir() and folder.stat().st_mode & stat.S_IWOTH:
        LOG.warning(
            "every user may write to %s, whose files are run as code: choose a folder that only trusted users can write",
            folder,
        )


def write_atomically(path: Path, *parts: bytes) -> None:
    """Write `parts`, one after the other, as one file; readers see all of it or none. Permissions follow the umask.

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
    """Hold the lock of `path`, a file beside it, against every other process and thread.

    waiting: receives a message where another process holds the lock. The lock ends with its process. Its file is not removed:
    otherwise two processes could hold locks on files of one name. On a file system without locks none is taken: files are written
    atomically, so that at worst two processes make the same file.

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
        LOG.warning("%s is made without a lock, since its file system has none: %s", name, problem)
