"""Progress bars and warnings of an export, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(
    items: Iterable[T], title: str, total: int | None = None, *, unit: str = "image", hidden: bool = False
) -> Iterator[T]:
    """Iterate over `items` with a progress bar. total: their number, where `items` has no length."""
    return iter(tqdm(items, title, total, file=sys.stderr, mininterval=0.5, unit=unit, disable=hidden))


def warn(message: str) -> None:
    """One line, above the progress bar where one is shown."""
    tqdm.write(message, file=sys.stderr)
