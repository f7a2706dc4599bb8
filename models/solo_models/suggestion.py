"""The known name nearest to an unknown one, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str | None:
    """The known name that is spelled most like `name`; `None` where none is close.

    prefix: what all names begin with; it is not compared, since it would make all names similar.
    """
    rests = [other.removeprefix(prefix) for other in known]
    found = get_close_matches(name.removeprefix(prefix), rests, n=1)
    return prefix + found[0] if found else None
