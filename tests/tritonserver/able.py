"""Whether nvidia-pytriton's server can run here; exit status 3 and a line in the list of what was not run, if it cannot."""

from __future__ import annotations

import ctypes
import platform
import sys
import sysconfig
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from support.not_run import append

NOT_RUN = 3
NEWEST_PYTHON, OLDEST_GLIBC = (3, 13), (2, 35)


def main() -> int:
    """Print why not, if the server cannot run."""
    reason = _why_not()
    if reason is None:
        return 0
    append([f"Triton: {reason}"])
    print(f"NOT RUN: Triton: {reason}", file=sys.stderr)
    return NOT_RUN


def _why_not() -> str | None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "nvidia-pytriton has its server for Linux on x86-64 only"
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < OLDEST_GLIBC:
        return f"nvidia-pytriton's server needs glibc {'.'.join(map(str, OLDEST_GLIBC))}; this is {name or 'no glibc'} {version}"
    if sys.version_info[:2] > NEWEST_PYTHON:
        return f"nvidia-pytriton's server has no Python back end for Python {sys.version_info[0]}.{sys.version_info[1]}"
    library = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
    if not (Path(sysconfig.get_config_var("LIBDIR")) / library).exists() and not _loads(library):
        return f"the Python back end needs {library}, which is not installed"
    return None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
