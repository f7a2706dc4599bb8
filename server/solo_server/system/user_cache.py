"""The user's cache folder, where there is one: containers run as users without a name, an entry in passwd or a `HOME`."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache() -> Path | None:
    """`XDG_CACHE_HOME`, else `.cache` in the home folder, else `None`; it may not be there, or not be writable.

    On Windows `LOCALAPPDATA`, else the home folder.
    """
    given = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # the XDG specification passes over relative ones
        return Path(given)
    home = _home()
    return home if home is None or sys.platform == "win32" else home / ".cache"


def _home() -> Path | None:
    """`HOME`, else the user's entry in passwd; `None` where there is neither."""
    try:
        return Path.home()
    except (RuntimeError, KeyError):  # the latter, of Python's `pwd`, should a version of it let that through
        return None
