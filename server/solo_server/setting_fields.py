"""All that is known of one setting, in the metadata of its field in `Settings`: written with `setting()`, read with `described()`.

port: int = setting(8000, "Port to listen on.", low=0, high=65_535, option=True)
    ─► Settings.read                   environment and command line to values, range checks
    ─► commands/serve_arguments.py     `solo serve --port N` and its help
    ─► benchmarks/page_settings.py     a row of the table in docs/deployment.md
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from solo_models.sizes import Size, SizeError, parse_oriented

from solo_server.errors import SettingsError

PREFIX = "SOLO_"
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9A-Fa-f:]+\](:\d{1,5})?")
_ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")
_SWITCH_VALUES = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}


def parse_shapes(text: str, name: str = "shapes") -> tuple[Size, ...]:
    """`1088x800,704x512:portrait` to padded sizes `(height, width)`: landscape and portrait of the first; none for an empty text.

    Raises:
        SettingsError: the text has another form; the message begins with `name`.
    """
    parts = filter(None, text.replace(" ", "").split(","))
    try:
        return tuple(size for part in parts for size in parse_oriented(part))
    except SizeError as problem:
        raise SettingsError(f"{name}: {problem}") from problem


def _switch(text: str, name: str) -> bool:
    if text.lower() not in _SWITCH_VALUES:
        raise SettingsError(f"{name}: {text!r} is neither on nor off")
    return _SWITCH_VALUES[text.lower()]


def _number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"{name}: {text!r} is not a whole number") from None


def _origins(text: str, name: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(","))
    wrong = [o for o in origins if not _ORIGIN.fullmatch(o)]
    if wrong and origins != ("*",):
        raise SettingsError(f"{name}: {wrong[0]!r} is neither an origin such as https://example.org nor * alone")
    return origins


def _root_path(text: str, name: str) -> str | None:
    if text and not _ROOT_PATH.fullmatch(text):
        advice = "begins with /, does not end with it, and has letters, digits and . _ ~ - only between slashes"
        raise SettingsError(f"{name}: {text!r}: a path such as /solo is needed: it {advice}")
    return text or None


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of setting. parse: a text to a value, or SettingsError, which begins with the second argument, the variable's name.

    values: what it may be, in words; metavar: the value in the usage of an option.
    """

    parse: Callable[[str, str], Any]
    values: str
    metavar: str


SWITCH = Kind(_switch, "`on`, `off`", "")
NUMBER = Kind(_number, "whole number", "N")
TEXT = Kind(lambda text, _: text, "text", "NAME")
PATH = Kind(lambda text, _: Path(text), "path", "PATH")
SHAPES = Kind(parse_shapes, "`LONGxSHORT[:portrait]`, with commas", "LONGxSHORT,...")
ROOT_PATH = Kind(_root_path, "path such as `/solo`", "/PATH")
URL_PREFIXES = Kind(
    lambda text, _: tuple(part.strip() for part in text.split(",")), "URL prefixes, with commas", "URL,..."
)  # `http/url_rules.py` checks them
ORIGINS = Kind(_origins, "origins, with commas", "ORIGIN,...")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. text: what it does, for the docs and for `--help`; name: of the field, in `described` only.

    low, high: the range of a number, both included; choices: the only texts allowed, where there are any; option: `solo serve`
    has an option for it; gpu_only: it does nothing on a CPU.
    """

    default: Any  # of the field's type, as what `kind.parse` returns
    text: str
    kind: Kind
    low: int
    high: int
    choices: tuple[str, ...]
    unit: str
    option: bool
    gpu_only: bool
    name: str = ""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()

    def check(self, value: Any) -> None:
        """Raises SettingsError: the value is out of range, or none of the choices."""
        if self.kind is NUMBER and not self.low <= value <= self.high:
            raise SettingsError(f"{self.variable}: {value} is not within {self.low}..{self.high}")
        if self.choices and value is not None and value not in self.choices:
            raise SettingsError(f"{self.variable}: {value!r} is none of {', '.join(self.choices)}")


def setting(
    default: Any,
    text: str,
    kind: Kind | None = None,
    *,
    low: int = 0,
    high: int = 0,
    choices: tuple[str, ...] = (),
    unit: str = "",
    option: bool = False,
    gpu_only: bool = False,
    secret: bool = False,
) -> Any:  # as `dataclasses.field` returns: type checkers go by the field's annotation
    """A field of `Settings`: see `Setting`. kind: follows from the default where that has a type; secret: left out of `repr`."""
    if kind is None:
        kind = SWITCH if isinstance(default, bool) else NUMBER if isinstance(default, int) else TEXT
    known = Setting(default, text, kind, low, high, choices, unit, option, gpu_only)
    return field(default=default, repr=not secret, metadata={"setting": known})


def described(settings: type) -> dict[str, Setting]:
    """Every setting of a dataclass, by the field's name, in order."""
    return {f.name: replace(f.metadata["setting"], name=f.name) for f in fields(settings)}
