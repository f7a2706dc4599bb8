"""The servers of these tests, started once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from processes import BUNDLE, solo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def astronaut() -> Path:
    return ROOT / "tests" / "images" / "astronaut.jpg"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demo model, which finds a person."""
    with solo(tmp_path_factory.mktemp("demo")) as url:
        yield url


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A random network, whose masks have many parts and holes."""
    with solo(tmp_path_factory.mktemp("noisy"), BUNDLE, SOLO_MAX_FILES="4") as url:
        yield url
