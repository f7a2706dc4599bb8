"""Import of a tool's package, with an error that says how to install it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from solo_client.errors import PackageMissing


@contextmanager
def needs(module: str, requirement: str) -> Iterator[None]:
    """Translate the error of an import of `module` inside this context. An error inside an installed package stays as it is.

    Raises:
        PackageMissing: there is no `module`; the message says to install `requirement`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise PackageMissing(f"{module} is not installed: pip install {requirement}") from error
