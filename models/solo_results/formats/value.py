"""One value inside a JSON file, together with its place, so that a reader can say what is wrong and where."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from solo_results.errors import UnreadableFile

OUTSIDE_PX = 1.0
"""How far a point may be outside of its image: annotation tools round. What is outside is cut off."""
_LONGEST_SHOWN = 60  # characters of a wrong value in a message
_LEAST_NUMBERS = 6


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON value, its file, and its place, such as `annotations[3].bbox`. Every reader raises UnreadableFile with both."""

    file: str
    place: str
    value: object

    def has(self, name: str) -> bool:
        """Whether an object has this member, and it is not null."""
        return isinstance(self.value, dict) and self.value.get(name) is not None

    def member(self, name: str) -> Value:
        """A required member of an object."""
        if not isinstance(self.value, dict):
            raise self.unexpected("an object")
        if name not in self.value:
            raise UnreadableFile(self.file, self._below(name), "is missing")
        return Value(self.file, self._below(name), self.value[name])

    def items(self, count: int | None = None) -> list[Value]:
        """The items of a list; `count`, if given, is how many there must be."""
        if not isinstance(self.value, list) or (count is not None and len(self.value) != count):
            raise self.unexpected("a list" if count is None else f"a list of {count}")
        return [Value(self.file, f"{self.place}[{index}]", value) for index, value in enumerate(self.value)]

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            raise self.unexpected("a string")
        return self.value

    def integer(self, minimum: int = 0, maximum: int = 1 << 53) -> int:
        """A whole number in this range; `true` is none."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not minimum <= self.value <= maximum:
            raise self.unexpected(f"a whole number from {minimum} to {maximum}")
        return self.value

    def number(self, minimum: float = 0.0, maximum: float = sys.float_info.max) -> float:
        """A finite number in this range."""
        value = self.value
        if not isinstance(value, int | float) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise self.unexpected(f"a number from {minimum:g} to {maximum:g}")
        return float(value)

    def ring(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """A ring `(P, 2)` from a flat list `[x1, y1, ...]` of three points or more, in an image of `(H, W)`."""
        numbers = self.value
        if not isinstance(numbers, list) or len(numbers) < _LEAST_NUMBERS or len(numbers) % 2:
            raise self.unexpected("a list [x1, y1, ...] of at least three points")
        return self._inside(numbers, size)

    def ring_of_points(self, size: tuple[int, int], least: int = 3) -> NDArray[np.float64]:
        """A ring `(P, 2)` from a list of points `[[x1, y1], ...]`, in an image of `(H, W)`."""
        points = self.value
        if (
            not isinstance(points, list)
            or len(points) < least
            or not all(isinstance(p, list) and len(p) == 2 for p in points)
        ):
            raise self.unexpected(f"a list [[x1, y1], ...] of at least {least} points")
        return self._inside(list(chain.from_iterable(points)), size)

    def unexpected(self, expected: str) -> UnreadableFile:
        """The error that says what should have been here."""
        shown = repr(self.value)
        if len(shown) > _LONGEST_SHOWN:
            shown = shown[: _LONGEST_SHOWN - 3] + "..."
        return UnreadableFile(self.file, self.place, f"should be {expected}, not {shown}")

    def refused(self, reason: object) -> UnreadableFile:
        """An error at this place."""
        return UnreadableFile(self.file, self.place, str(reason))

    def _inside(self, numbers: list[object], size: tuple[int, int]) -> NDArray[np.float64]:
        wrong = next((number for number in numbers if type(number) not in (int, float)), None)
        if wrong is not None:
            raise Value(self.file, self.place, wrong).unexpected("a number")
        try:
            points = np.array(numbers, np.float64).reshape(-1, 2)
        except OverflowError as error:
            raise self.refused("has a number that is too large") from error
        return inside(points, size, self)

    def _below(self, name: str) -> str:
        return f"{self.place}.{name}" if self.place else name


def inside(points: NDArray[np.float64], size: tuple[int, int], value: Value) -> NDArray[np.float64]:
    """The points themselves. Raises UnreadableFile: one is not finite, or is outside of the image `(H, W)`."""
    limits = np.array((size[1], size[0]), np.float64)
    is_wrong = ~((points >= -OUTSIDE_PX) & (points <= limits + OUTSIDE_PX)).all(axis=1)
    if is_wrong.any():
        x, y = points[np.argmax(is_wrong)]
        raise value.refused(f"the point ({x:g}, {y:g}) is outside of the image of {size[1]} x {size[0]} pixels")
    return points


def parse_json(file: str, content: bytes) -> Value:
    """The whole file as JSON, in UTF-8 with or without a mark.

    Raises:
        UnreadableFile: it is not JSON, or is nested too deeply; `NaN` and `Infinity` are not JSON either.
    """
    try:
        return Value(file, "", json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant))
    except RecursionError as error:
        raise UnreadableFile(file, "", "is nested too deeply") from error
    except ValueError as error:
        raise UnreadableFile(file, "", f"is not JSON: {error}") from error


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
