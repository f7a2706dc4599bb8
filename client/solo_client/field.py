"""One value inside a JSON response, together with its path, so that `wire` can name what is wrong."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from solo_client.errors import UnexpectedAnswer

ROOT = "body"  # the path of the whole response; left out of the paths below it
_LONGEST_SHOWN = 60  # characters of a wrong value in a message


@dataclass(frozen=True, slots=True)
class Field:
    """A JSON value and its path, such as `instances[2].score`. Every reader raises UnexpectedAnswer with that path."""

    path: str
    value: object

    def members(self) -> dict[str, Field]:
        """The members of an object; the server MAY send more than this version reads."""
        if not isinstance(self.value, dict):
            raise self.unexpected("an object")
        return {name: Field(self._below(name), value) for name, value in self.value.items()}

    def member(self, name: str) -> Field:
        """A required member."""
        if not isinstance(self.value, dict):
            raise self.unexpected("an object")
        if name not in self.value:
            raise UnexpectedAnswer(self._below(name), "is missing")
        return Field(self._below(name), self.value[name])

    def items(self, count: int | None = None) -> list[Field]:
        """The items of a list; `count`, if given, is how many there MUST be."""
        if not isinstance(self.value, list) or (count is not None and len(self.value) != count):
            raise self.unexpected("a list" if count is None else f"a list of {count}")
        return [Field(f"{self.path}[{index}]", value) for index, value in enumerate(self.value)]

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            raise self.unexpected("a string")
        return self.value

    def integer(self, minimum: int = 0) -> int:
        """A whole number of at least `minimum`; `12.0` and `true` are not whole numbers."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or self.value < minimum:
            raise self.unexpected(f"a whole number of at least {minimum}")
        return self.value

    def number(self, maximum: float = sys.float_info.max) -> float:
        """A finite number from 0 to `maximum`."""
        if not isinstance(self.value, int | float) or isinstance(self.value, bool) or not 0 <= self.value <= maximum:
            raise self.unexpected(f"a number from 0 to {maximum:g}")
        return float(self.value)

    def unexpected(self, expected: str) -> UnexpectedAnswer:
        """The error that says what should have been here."""
        shown = repr(self.value)
        if len(shown) > _LONGEST_SHOWN:
            shown = shown[: _LONGEST_SHOWN - 3] + "..."
        return UnexpectedAnswer(self.path, f"should be {expected}, not {shown}")

    def _below(self, name: str) -> str:
        return name if self.path == ROOT else f"{self.path}.{name}"
