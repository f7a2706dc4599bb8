"""How kernels are compiled: for this kind of processor, to run without the interpreter lock, and cached on disk where possible.

`solo_server.system.processor` chooses the target. numba caches compiled code beside the sources, in the user's cache folder or
in `NUMBA_CACHE_DIR`, and fails where none of them is writable. A precompiled `NUMBA_CACHE_DIR` that is read-only is therefore
copied to the user's cache folder, or else to a private temporary one: numba's cache files are pickles, so nobody else may write
there.
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

config: Any = numba_config  # sets its attributes while it is imported
_PRIVATE: list[Path] = []


def _set_target() -> None:
    """Compile for `kernel_target`, unless `NUMBA_CPU_NAME` is set."""
    target = kernel_target(this_processor())
    if config.CPU_NAME is None and target is not None:
        config.CPU_NAME, config.CPU_FEATURES = target, ""


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _set_cache() -> tuple[bool, bool]:
    """Set numba's cache folder. Returns whether this process can cache compiled kernels, and whether the next one finds them.

    The folder's name holds a digest of all kernel sources: numba does not notice when a kernel that another one calls has changed.
    """
    name = f"solo-{_digest()}"
    configured = (Path(config.CACHE_DIR) if config.CACHE_DIR else Path(__file__).parent / "__pycache__") / name
    users_cache = user_cache()
    user_copy = None if users_cache is None else users_cache / "numba" / name
    if _is_writable(configured):
        config.CACHE_DIR = str(configured)
    elif user_copy is not None and _copied(configured, user_copy) and _is_writable(user_copy):
        config.CACHE_DIR = str(user_copy)
    else:
        try:
            private = Path(tempfile.mkdtemp(prefix="solo-kernels-"))
        except OSError:
            return False, False
        _PRIVATE.append(private)
        atexit.register(remove_private_cache)
        if configured.is_dir():
            shutil.copytree(configured, private, dirs_exist_ok=True)
        config.CACHE_DIR = str(private)
        return True, False
    return True, True


def remove_private_cache() -> None:
    """Remove the temporary folder of kernels, if there is one. For processes that end, or call exec, without `atexit`."""
    while _PRIVATE:
        shutil.rmtree(_PRIVATE.pop(), ignore_errors=True)


def _copied(precompiled: Path, user_copy: Path) -> bool:
    """Copy precompiled kernels to the new folder `user_copy`, atomically: other processes find all or none. Whether that worked."""
    if user_copy.is_dir() or not precompiled.is_dir():
        return True
    try:
        with scratch_beside(user_copy) as scratch:
            shutil.copytree(precompiled, scratch)
            if not user_copy.is_dir():  # two processes may copy the same; the second one's rename fails
                scratch.rename(user_copy)
    except OSError:
        return user_copy.is_dir()
    return True


def _digest() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


_set_target()
CAN_CACHE, IS_CACHE_KEPT = _set_cache()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` at its configured call with given argument types; it must not use Python objects."""
    return njit(nogil=True, cache=CAN_CACHE)(function)
