"""Test data that is expensive to make, kept in `build/kept` between runs and shared by the test processes of one run.

    kept("tiny-solo", make, *sources) ─► build/kept/tiny-solo-DIGEST ── there? ─► its path
                                                                     └─ no ─► lock ─► make(scratch folder) ─► rename

The digest is of the contents of `sources` and of the versions of the libraries that take part, so that nothing is read that other
code has made. `make clean` removes all of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from support.paths import ROOT

FOLDER = ROOT / "build" / "kept"
LIBRARIES = ("numba", "numpy", "onnx", "onnxruntime", "pillow", "torch")


def kept(name: str, make: Callable[[Path], None], *sources: Path | str) -> Path:
    """A folder that `make` has filled, now or in an earlier run.

    Args:
        name: what it is; part of the folder's name.
        make: fills an empty folder. It is called by one process at a time, and not at all where the folder is there.
        sources: files and folders (of Python files) whose contents decide what `make` writes, and texts such as parameters.
    """
    folder = FOLDER / f"{name}-{_digest(sources)}"
    if folder.is_dir():
        return folder
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            for older in FOLDER.glob(f"{name}-{'[0-9a-f]' * 16}"):
                shutil.rmtree(older)
            scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=FOLDER))
            try:
                make(scratch)
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _digest(sources: Iterable[Path | str]) -> str:
    digest = hashlib.sha256(_versions().encode())
    for source in sources:
        digest.update(_of_files(source) if isinstance(source, Path) else source.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


@lru_cache
def _of_files(source: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
        digest.update(str(path.relative_to(ROOT)).encode())
        digest.update(path.read_bytes())
    return digest.digest()


@lru_cache
def _versions() -> str:
    return " ".join(f"{library} {_version(library)}" for library in LIBRARIES)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "-"
