"""Ends a build whose TensorRT is not of the wanted version: 10.5 and later refuse a V100, but only at its first start.

python check_tensorrt.py 10.4.
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path

LIBRARY = "libnvinfer.so.10"


def main() -> None:
    """Exit status 1 with the reason where libraries or bindings are others, or the libraries are none."""
    wanted = sys.argv[1]
    for name in ("tensorrt-cu12-libs", "tensorrt-cu12-bindings"):
        found = distribution(name).version
        if not found.startswith(wanted):
            sys.exit(f"{name} {found} is installed; wanted is {wanted}*")
    files = distribution("tensorrt-cu12-libs").files or ()
    if not any(Path(file).name == LIBRARY for file in files):
        sys.exit(
            f"tensorrt-cu12-libs came without {LIBRARY}: give the index that has it, --build-arg TENSORRT_INDEX=URL"
        )
    print(f"TensorRT {distribution('tensorrt-cu12-libs').version}")


if __name__ == "__main__":
    main()
