"""The container images that `build.py` built on the stand-in base, and the figures that `--record` writes."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from image_builder import Image, laid_out


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="write sizes, start time and memory to this JSON file")


@pytest.fixture(scope="session")
def cpu() -> Iterator[Image]:
    with laid_out("cpu") as image:
        yield image


@pytest.fixture(scope="session")
def exporter() -> Iterator[Image]:
    with laid_out("export") as image:
        yield image


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Figures that tests record; written at the end of the session with `--record` if no test failed."""
    recorded: dict[str, Any] = {}
    yield recorded
    if (path := request.config.getoption("--record")) and request.session.testsfailed == 0:
        from record import write_record

        command = f"make image-test RECORD={path}"
        write_record(path, {"command": command, "format": "solo-image", "format_version": 1, **recorded})
