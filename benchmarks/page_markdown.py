"""Rows and numbers as the tables of the pages write them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def head(*titles: str) -> Iterator[str]:
    """The two lines that begin a table."""
    yield row(*titles)
    yield "|" + "---|" * len(titles)


def row(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def number(value: float) -> str:
    """As many digits as mean something: 0.12, 1.2, 12.3, 123; whole numbers as they are."""
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def machine(hardware: dict[str, Any]) -> str:
    """The processor with its cores and the instructions that figures depend on, where they were recorded."""
    instructions = ", ".join(hardware.get("instructions", []))
    return f"{hardware['cpu']}, {hardware['cores']} cores{f' ({instructions})' if instructions else ''}"
