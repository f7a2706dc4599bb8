"""Facts about a file as strict JSON, or as lines for people."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

LINE_LENGTH = 110
SHOWN_ITEMS = 8
SHOWN_CHARACTERS = 160

Facts = dict[str, Any]


def as_json(facts: Facts) -> str:
    """Strict JSON: NaN and infinities, which Python's reader accepts, become strings."""
    return json.dumps(json.loads(json.dumps(facts), parse_constant=str), indent=1)


def as_lines(facts: Facts) -> Iterator[str]:
    """The facts as lines: single values first, then each group under its heading."""
    yield from _aligned(_rows({k: v for k, v in facts.items() if not isinstance(v, dict)}))
    for heading, group in facts.items():
        if isinstance(group, dict):
            yield from ("", heading, *_aligned(_rows(group, "  ") if group else [("  nothing recorded", "")]))


def _rows(entries: Mapping[Any, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    for key, value in entries.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = dict(enumerate(value))
        if isinstance(value, dict) and any(isinstance(v, dict) or len(str(v)) > 60 for v in value.values()):
            yield f"{indent}{key}", ""
            yield from _rows(value, indent + "  ")
        else:
            yield f"{indent}{key}", _text(str(key), value)


def _aligned(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    rows = [(printable(label), text) for label, text in rows]
    column = min(40, max((len(label) for label, text in rows if text), default=0) + 1)
    for label, text in rows:
        first, *more = textwrap.wrap(text, LINE_LENGTH - column) or [""]
        yield f"{label:<{column}} {printable(first)}".rstrip()
        yield from (" " * (column + 1) + printable(line) for line in more)


def _text(key: str, value: Any, *, inside: bool = False) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() if key.endswith("bytes"):
            return f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value} bytes"
        case float():
            return f"{value:.4g}"
        case {"dtype": dtype, "shape": [*shape]}:
            return f"{dtype} ({', '.join(map(str, shape))})"
        case dict():
            words = {k: _text(k, v, inside=True) for k, v in value.items()}
            return ", ".join(word if k == "bytes" else f"{k} {word}" for k, word in words.items())
        case list() | tuple() if inside and all(isinstance(side, int) for side in value):
            return "x".join(map(str, value))
        case list() | tuple():
            more = [f"... ({len(value)} in all)"] if len(value) > SHOWN_ITEMS else []
            text = ", ".join([_text("", item, inside=True) for item in value[:SHOWN_ITEMS]] + more)
            return f"({text})" if inside else text or "none"
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}... ({len(text)} characters)"


def printable(text: str) -> str:
    """Replace control characters: text of a file must not control the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
