"""Formats rows and numbers for the tables of the pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def head(*titles: str) -> Iterator[str]:
    """The two header lines of a table."""
    yield row(*titles)
    yield "|" + "---|" * len(titles)


def row(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def number(value: float) -> str:
    """Two or three significant digits: 0.12, 1.2, 12.3, 123; whole numbers unchanged."""
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def machine(hardware: dict[str, Any]) -> str:
    """The processor, its cores, and the recorded instruction sets."""
    instructions = ", ".join(hardware.get("instructions", []))
    return f"{hardware['cpu']}, {hardware['cores']} cores{f' ({instructions})' if instructions else ''}"
