"""Reads result files for the tables of the pages: contenders, their figures, and ratios between them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Figures = dict[str, Any]  # as `solo_server.bench.figures` writes them
ABSOLUTE_PATH = re.compile(r"(^|[ =])/\w")


class NotMeasured(Exception):
    """A result file, or a contender in it, is missing; the message names it."""


class BadResult(Exception):
    """A result file must not be published, or a block has no table."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One contender of a result file. precision: `None` for a peer; times: `(round, task)` to milliseconds."""

    name: str
    engine: str
    precision: str | None
    details: dict[str, Any]
    figures: Figures
    times: dict[tuple[int, int], float]

    @property
    def median_ms(self) -> float:
        """Median milliseconds per image."""
        return float(self.figures["median_ms"])


@dataclass(slots=True)
class Results:
    """The folder of result files. missing: names of requested files that do not exist."""

    folder: Path
    missing: set[str] = field(default_factory=set)

    def read(self, name: str) -> dict[str, Any]:
        """Read one file, by its name without suffix.

        Raises:
            NotMeasured: it does not exist.
            BadResult: it is not a JSON object, its measurement ended early, or its command contains a path of some machine.
        """
        path = self.folder / f"{name}.json"
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            self.missing.add(path.name)
            raise NotMeasured(path.name) from None
        except ValueError as problem:
            raise BadResult(f"{path.name}: is not JSON ({problem})") from problem
        if not isinstance(content, dict):
            raise BadResult(f"{path.name}: is not a result")
        if content.get("ended_early"):
            raise BadResult(f"{path.name}: ended early ({content['ended_early']}); measure again")
        if ABSOLUTE_PATH.search(str(content.get("command", ""))):
            raise BadResult(f"{path.name}: command: contains an absolute path; measure again with relative ones")
        return content

    def contenders(self, name: str) -> list[Contender]:
        """The contenders of a `solo bench pipeline` file."""
        return [_contender(entry, entry["figures"]) for entry in self.read(name)["contenders"]]

    def ours(self, name: str, precision: str, engine: str = "") -> Contender:
        """Our fastest contender in a precision, on a given engine or on any."""
        fitting = [c for c in self.contenders(name) if c.precision == precision and c.engine.startswith(engine)]
        if not fitting:
            raise NotMeasured(f"{name}.json: {precision} {engine}".rstrip())
        return min(fitting, key=lambda c: c.median_ms)

    def peer(self, name: str, peer: str) -> Contender:
        """A peer by the beginning of its name: `mmdet` or `plain ONNX`."""
        fitting = [c for c in self.contenders(name) if c.precision is None and c.name.startswith(peer)]
        if not fitting:
            raise NotMeasured(f"{name}.json: {peer}")
        return fitting[0]


def time_ratio(theirs: Contender, ours: Contender) -> tuple[float, float, float]:
    """Time of `theirs` relative to `ours`: ratio of medians, then lowest and highest of single rounds, which ran side by side."""
    mine, other = _by_round(ours), _by_round(theirs)
    both = [n for n in mine if len(mine[n]) == len(other.get(n, []))]
    rounds = [sum(other[n]) / sum(mine[n]) for n in both]
    ratio = theirs.median_ms / ours.median_ms
    return ratio, min(rounds, default=ratio), max(rounds, default=ratio)


def after_towers_ratio(theirs: Contender, ours: Contender) -> float:
    """The ratio of the times after the mask towers."""
    return float(theirs.figures["after_towers_ms"]) / float(ours.figures["after_towers_ms"])


def memory_ratio(ours: Contender, theirs: Contender) -> float:
    """Peak resident memory of ours relative to theirs."""
    return float(ours.figures["peak_rss_mib"]) / float(theirs.figures["peak_rss_mib"])


def quiet_share(content: dict[str, Any]) -> float | None:
    """The largest share of the machine that other processes used while a contender was measured; `None` if not known."""
    figures = [entry.get("figures") or entry["batches"][0]["figures"] for entry in content.get("contenders", [])]
    shares = [f["foreign_share"] for f in figures] or [p["foreign_share"] for p in content.get("points", [])]
    known = [share for share in shares if share is not None]
    return max(known) if known else None


def _contender(entry: dict[str, Any], figures: Figures | None) -> Contender:
    if figures is None:
        raise NotMeasured(f"samples of {entry['name']}")
    times = {(s["round"], s["task"]): s["total_ms"] for s in entry["samples"]}
    details = entry.get("details", {})
    return Contender(entry["name"], entry["description"], details.get("precision"), details, figures, times)


def _by_round(contender: Contender) -> dict[int, list[float]]:
    rounds: defaultdict[int, list[float]] = defaultdict(list)
    for (number, _), ms in contender.times.items():
        rounds[number].append(ms)
    return dict(rounds)
