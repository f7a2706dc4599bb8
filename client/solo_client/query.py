"""The options of a request; a server and a local model take the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from solo_client.errors import InvalidArgument


class Options(TypedDict, total=False):
    """Keyword arguments of the `segment` methods; None or omitted means the model's default."""

    score_threshold: float | None
    max_instances: int | None
    classes: Sequence[str] | None
    nms: str | None
    colour_by: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """Validated options.

    score_threshold: 0..1; max_instances: at least 1; classes: labels; nms: matrix, mask or none, checked by the server;
    colour_by: of overlays, instance or class, checked by the server.

    Raises:
        InvalidArgument: a value is out of range, or a class name is empty.
    """

    score_threshold: float | None = None
    max_instances: int | None = None
    classes: Sequence[str] | None = None
    nms: str | None = None
    colour_by: str | None = None

    def __post_init__(self) -> None:
        if self.score_threshold is not None and not 0 <= self.score_threshold <= 1:
            raise InvalidArgument("score_threshold", f"must be from 0 to 1, not {self.score_threshold}")
        if self.max_instances is not None and self.max_instances < 1:
            raise InvalidArgument("max_instances", f"must be at least 1, not {self.max_instances}")
        if isinstance(self.classes, str):
            raise InvalidArgument("classes", f"must be a list of names, not the one string {self.classes!r}")
        if self.classes is not None and (not self.classes or not all(_is_name(n) for n in self.classes)):
            raise InvalidArgument(
                "classes", f"must be names, or ids as text, none of them empty, not {list(self.classes)}"
            )

    def to_parameters(self) -> dict[str, str | list[str]]:
        """Query parameters; class names are joined by commas, or are a list if one of them contains a comma."""
        parameters: dict[str, str | list[str] | None] = {
            "score_threshold": None if self.score_threshold is None else repr(float(self.score_threshold)),
            "max_instances": None if self.max_instances is None else str(self.max_instances),
            "classes": None if self.classes is None else _joined(list(self.classes)),
            "nms": self.nms,
            "colour_by": self.colour_by,
        }
        return {name: value for name, value in parameters.items() if value is not None}


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name.strip())


def _joined(names: list[str]) -> str | list[str]:
    return names if any("," in name for name in names) else ",".join(names)
