"""Where engines and cubins are kept between starts, and how processes that would make the same one wait for each other.

Whatever is kept here can be made again: files are written atomically, and a reader that finds one damaged makes it anew.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

VARIABLE = "SOLO_CACHE"


def cache_folder(chosen: Path | None = None) -> Path:
    """`chosen`, else `SOLO_CACHE`, else `solo` in the user's cache folder; not made yet."""
    given = chosen or os.environ.get(VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "solo"


def write_atomically(path: Path, *parts: bytes) -> None:
    """Write `parts`, one after the other, as one file; readers see all of it or none.

    Raises:
        OSError: the folder cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.", delete=False) as file:
        try:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


@contextmanager
def locked(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of `path` (in a file of its own beside it) against every other process and thread.

    waiting: told once, in words, where another holds it. The lock ends with its process, however that ends, and its file stays:
    were it removed, two could hold locks on files of one name.

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
