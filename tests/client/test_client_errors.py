"""The error tree."""

from __future__ import annotations

import pickle
import re

import pytest
from solo_client import errors
from solo_client.errors import Problem, SoloError, error_of

_CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, SoloError)]


def _problem(code: str, status: int) -> Problem:
    return Problem("about:blank", "Title", status, "what went wrong", code, "r-1")


def test_every_class_is_drawn_in_the_docstring_under_its_base() -> None:
    drawn = {}
    bases: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ((?:[│ ]   )*)(?:[├└]── )?([A-Z]\w+)", line)
        if found and (line.strip() == "SoloError" or "──" in line):
            depth = 0 if "──" not in line else len(found[1]) // 4 + 1
            bases[depth:] = [found[2]]
            drawn[found[2]] = bases[depth - 1] if depth else "Exception"
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in _CLASSES}


def test_the_docstring_gives_every_class_its_code() -> None:
    drawn = dict(re.findall(r"── (\w+) +(\w+)$", errors.__doc__ or "", re.MULTILINE))
    assert drawn == {kind.__name__: code for code, kind in errors.BY_CODE.items()}


def test_every_code_has_its_own_class() -> None:
    """tests/contract/test_client_codes.py checks that the server has the same codes."""
    assert len(set(errors.BY_CODE.values())) == len(errors.BY_CODE)
    for code, kind in errors.BY_CODE.items():
        error = error_of(_problem(code, 400))
        assert (type(error), error.code) == (kind, code)
        assert str(error) == f"what went wrong ({code}, request r-1)"


@pytest.mark.parametrize(
    ("status", "base"), [(401, "CallerFault"), (503, "Unavailable"), (500, "ServerFault"), (507, "ServerFault")]
)
def test_an_unknown_code_becomes_the_base_of_its_status(status: int, base: str) -> None:
    assert type(error_of(_problem("new_code", status))).__name__ == base


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidArgument("nms", "is bad"),
        errors.InvalidEnvironment("ALL_PROXY", "is bad"),
        errors.TimedOut("http://solo.test/segment", "no answer in time"),
        errors.Overloaded(_problem("overloaded", 503), 2.0),
        errors.UnexpectedAnswer("image.width", "is missing"),
        errors.DamagedMask("counts ends inside a number"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: SoloError) -> None:
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)
