"""The table of the server's settings, from `solo_server.settings`: names, defaults and bounds, and the text below each field."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields
from types import UnionType
from typing import Any, get_args, get_type_hints

from page_markdown import head, row
from page_results import BadResult, Results
from solo_server import settings
from solo_server.settings import PREFIX, Settings

UNITS = {  # by how the name ends
    "_bytes_per_s": "bytes/s",
    "_bytes": "bytes",
    "_mib": "MiB",
    "_ms": "ms",
    "_s": "s",
    "_seconds": "s",
    "_pixels": "pixels",
    "_side": "pixels",
    "threads": "cores",
}
KINDS = {bool: "`on`, `off`", int: "whole number", str: "text"}
LISTS = {"shapes": "`LONGxSHORT[:portrait]`, with commas", "cors_origins": "origins, with commas"}


def settings_table(results: Results) -> Iterator[str]:
    """Every environment variable: what it may be, default, unit, meaning."""
    yield from head("variable", "value", "default", "unit", "")
    told, kinds = described(inspect.getsource(settings)), get_type_hints(Settings)
    for field in fields(Settings):
        if not told.get(field.name):
            raise BadResult(f"settings.py says nothing below the field {field.name}: what is it for?")
        name = f"`{PREFIX}{field.name.upper()}`"
        yield row(
            name, _values(field.name, kinds[field.name]), _default(field.default), _unit(field.name), told[field.name]
        )


def described(source: str) -> dict[str, str]:
    """The text below each field of the class `Settings` in `source`, on one line."""
    (settings_class,) = (n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Settings")
    texts = {}
    for node, following in zip(settings_class.body, settings_class.body[1:], strict=False):
        match node, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts


def _values(name: str, kind: Any) -> str:  # Any: types have no type of their own
    names, ranges = dict(settings._NAMES), {n: (low, high) for n, low, high in settings._RANGES}
    if name in names:
        return ", ".join(f"`{known}`" for known in names[name])
    if name in ranges:
        low, high = ranges[name]
        return f"{low} to {high}"
    plain = next(k for k in get_args(kind) if k is not type(None)) if isinstance(kind, UnionType) else kind
    return LISTS.get(name) or KINDS.get(plain, "path")


def _default(value: Any) -> str:
    if value is None or value == ():
        return ""
    return f"`{'on' if value else 'off'}`" if isinstance(value, bool) else f"`{value}`"


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")
