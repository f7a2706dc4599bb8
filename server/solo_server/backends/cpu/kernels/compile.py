"""How kernels are compiled: once for a kind of processor, without the interpreter lock, kept on disk where that is possible.

`solo_server.system.processor` decides for which processor. numba keeps compiled code beside the sources, in the user's cache folder
or in `NUMBA_CACHE_DIR`, and refuses to work where none of them can be written; a precompiled `NUMBA_CACHE_DIR` that is read-only
is therefore copied, to the user's cache folder or else to a private temporary one: numba's cache files are pickles, a folder that
others may write to will not do.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config as numba_config
from numba import njit
from solo_models.atomic_file import scratch_beside

from solo_server.system.processor import kernel_target, this_processor
from solo_server.system.user_cache import user_cache

config: Any = numba_config  # fills itself with attributes when it is imported
_PRIVATE: list[Path] = []


def _set_target() -> None:
    """What `NUMBA_CPU_NAME` says stands."""
    target = kernel_target(this_processor())
    if config.CPU_NAME is None and target is not None:
        config.CPU_NAME, config.CPU_FEATURES = target, ""


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _settle_cache() -> tuple[bool, bool]:
    """Choose numba's cache folder; whether compiled kernels can be kept in this process, and whether the next one finds them.

    The folder is named for all sources here: numba itself would not see that a kernel has changed which another one calls.
    """
    name = f"solo-{_digest()}"
    first = (Path(config.CACHE_DIR) if config.CACHE_DIR else Path(__file__).parent / "__pycache__") / name
    users = user_cache()
    kept = None if users is None else users / "numba" / name
    if _can_write(first):
        config.CACHE_DIR = str(first)
    elif kept is not None and _copied(first, kept) and _can_write(kept):
        config.CACHE_DIR = str(kept)
    else:
        try:
            private = Path(tempfile.mkdtemp(prefix="solo-kernels-"))
        except OSError:
            return False, False
        _PRIVATE.append(private)
        atexit.register(remove_private_cache)
        if first.is_dir():
            shutil.copytree(first, private, dirs_exist_ok=True)
        config.CACHE_DIR = str(private)
        return True, False
    return True, True


def remove_private_cache() -> None:
    """Remove the temporary folder of kernels, if there is one: for a process that ends, or becomes another, without `atexit`."""
    while _PRIVATE:
        shutil.rmtree(_PRIVATE.pop(), ignore_errors=True)


def _copied(precompiled: Path, kept: Path) -> bool:
    """Begin the folder `kept` with what is precompiled, at once: other processes find all of it or nothing. Whether that worked."""
    if kept.is_dir() or not precompiled.is_dir():
        return True
    try:
        with scratch_beside(kept) as scratch:
            shutil.copytree(precompiled, scratch)
            if not kept.is_dir():  # two processes may copy the same; the second one's rename fails
                scratch.rename(kept)
    except OSError:
        return kept.is_dir()
    return True


def _digest() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


_set_target()
CAN_BE_KEPT, ARE_FOUND_AGAIN = _settle_cache()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call with given types; it must not touch Python objects."""
    return njit(nogil=True, cache=CAN_BE_KEPT)(function)
