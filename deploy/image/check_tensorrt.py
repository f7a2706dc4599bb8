"""Fails a build with the wrong TensorRT version: 10.5 and later reject a V100, but only at the first start.

python check_tensorrt.py 10.4.
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path

LIBRARY = "libnvinfer.so.10"


def main() -> None:
    """Exit status 1 and the reason if libraries or bindings have another version, or the libraries are missing."""
    required = sys.argv[1]
    for name in ("tensorrt-cu12-libs", "tensorrt-cu12-bindings"):
        found = distribution(name).version
        if not found.startswith(required):
            sys.exit(f"{name} {found} is installed; {required}* is required")
    files = distribution("tensorrt-cu12-libs").files or ()
    if not any(Path(file).name == LIBRARY for file in files):
        sys.exit(
            f"tensorrt-cu12-libs does not contain {LIBRARY}: name an index that has it, --build-arg TENSORRT_INDEX=URL"
        )
    print(f"TensorRT {distribution('tensorrt-cu12-libs').version}")


if __name__ == "__main__":
    main()
