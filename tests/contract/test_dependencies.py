"""What is installed is named exactly, so that an audit of `constraints.txt` is an audit of what runs."""

import re
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
EXACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9A-Za-z.]*(\+[0-9A-Za-z.]+)?")


def _lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def _pinned() -> set[str]:
    return {_name(line.split("==")[0]) for line in _lines()}


def test_every_constraint_is_one_exact_version() -> None:
    assert [line for line in _lines() if not EXACT.fullmatch(line)] == []
    assert len(_pinned()) == len(_lines())


def test_everything_that_the_server_and_the_client_ask_for_is_pinned_and_so_is_what_that_asks_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {_name(name) for names in packages_distributions().values() for name in names}
    seen: set[str] = set()
    todo = [Requirement(text) for extra in ("server", "client", "openvino", "otel") for text in extras[extra]]
    while todo:
        asked = todo.pop()
        name = _name(asked.name)
        if name in seen or name == "solo-inference" or (asked.marker and not asked.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        assert name in installed
        todo += [Requirement(text) for text in requires(name) or ()]
    assert len(seen) > 15
    assert seen - _pinned() == set()
