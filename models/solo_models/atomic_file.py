"""Writing a file or a folder so that readers see all of it or none. Standard library only.

The client has its own copy (`solo_client.command.output`): it imports no other package of ours.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to, which replaces `path` when the block ends without an exception.

    Missing parent folders are made. Permissions follow the umask. A symbolic link at `path` is replaced, not its target.

    Raises:
        OSError: the folder of `path` cannot be written; nothing is left behind, and `path` stays as it was.
    """
    with scratch_beside(path) as scratch:
        yield scratch
        if scratch.is_dir() and path.exists():
            os.replace(path, scratch.with_name(f"{path.name}.old"))  # a folder replaces empty folders only
        os.replace(scratch, path)


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """A path on the file system of `path` that ends in the same name; whatever is there when the block ends is removed.

    Raises:
        OSError: the folder of `path` cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # the scratch path lies in a folder of its own that only this user may read: nobody takes it for a finished file
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder) / path.name
