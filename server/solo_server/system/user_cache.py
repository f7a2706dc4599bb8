"""The user's cache folder, if there is one: container users may have no name, no entry in passwd and no `HOME`."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache() -> Path | None:
    """`XDG_CACHE_HOME`, else `.cache` in the home folder, else `None`. The folder may not exist or not be writable.

    On Windows `LOCALAPPDATA`, else the home folder.
    """
    given = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # the XDG specification says to ignore relative paths
        return Path(given)
    home = _home()
    return home if home is None or sys.platform == "win32" else home / ".cache"


def _home() -> Path | None:
    """`HOME`, else the user's entry in passwd; `None` if there is neither."""
    try:
        return Path.home()
    except (RuntimeError, KeyError):  # `pwd` raises KeyError, in case a Python version does not catch it
        return None
