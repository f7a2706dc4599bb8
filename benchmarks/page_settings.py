"""The table of the server's settings, made of what `solo_server.settings` knows of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from page_markdown import head, row
from page_results import Results
from solo_server.setting_fields import NUMBER, Setting
from solo_server.settings import SETTINGS


def settings_table(results: Results) -> Iterator[str]:
    """Every environment variable: allowed values, default, unit, text."""
    yield from head("variable", "value", "default", "unit", "")
    for known in SETTINGS.values():
        yield row(f"`{known.variable}`", _values(known), _default(known.default), known.unit, known.text)


def _values(known: Setting) -> str:
    if known.choices:
        return ", ".join(f"`{choice}`" for choice in known.choices)
    return f"{known.low} to {known.high}" if known.kind is NUMBER else known.kind.values


def _default(value: Any) -> str:
    if value is None or value == ():
        return ""
    return f"`{'on' if value else 'off'}`" if isinstance(value, bool) else f"`{value}`"
