"""The nearest known name, for messages about a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str | None:
    """The known name that is spelled most like `name`; `None` where none is close.

    prefix: begins all of them, and is left out of the comparison: it would make every two of them alike.
    """
    rests = [other.removeprefix(prefix) for other in known]
    found = get_close_matches(name.removeprefix(prefix), rests, n=1)
    return prefix + found[0] if found else None
