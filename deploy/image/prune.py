"""Removes files that `solo` never reads from an image's packages; `make image-test` tests the rest.

python prune.py SITE_PACKAGES
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PATTERNS = (
    "**/tests",
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    "**/*.a",
    "onnxruntime/capi/libonnxruntime.so.*",  # the C library; the Python module contains it too
    "onnxruntime/transformers",
    "onnxruntime/tools",
    "onnxruntime/datasets",
    "numpy/f2py",
    "numpy/_core/include",
    "torch/include",
    "torch/bin/protoc*",  # keep torch_shm_manager: importing torch needs it
    "torch/bin/test_*",
    "torch/bin/*Test",
    "torch/test",
    "pip",
    "setuptools",
)


def main() -> None:
    """Remove every match and print its size."""
    root = Path(sys.argv[1])
    for pattern in PATTERNS:
        found = [path for path in root.glob(pattern) if path.exists()]
        size_bytes = sum(map(_size_bytes, found))
        for path in found:
            _remove(path)
        if found:
            print(f"{size_bytes / 1e6:7.1f} MB  {pattern}")


def _size_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=False)
    elif path.exists():
        path.unlink()


if __name__ == "__main__":
    main()
