"""A real server with the demo model and a random network of three classes, in a process of its own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import serving
from solo_models.demo import demo_bundle

pytest_plugins = ["support.not_run"]
os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"  # no messages to its makers


@pytest.fixture(scope="session")
def random_bundle() -> Path:
    """The folder of a bundle of three classes with random weights: a hundred instances of any shape, with holes and parts.

    `make test-tools` makes it with torch, which the tools' environments lack.
    """
    return Path(os.environ["SOLO_TEST_BUNDLE"])


@pytest.fixture(scope="session")
def url(random_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of `demo-person`, its default model, and `random`."""
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(demo_bundle(), models / "demo-person")
    shutil.copytree(random_bundle, models / "random")
    python = os.environ.get("SOLO_TEST_SERVER_PYTHON", sys.executable)
    with serving(python, "--models", str(models), "--default-model", "demo-person") as found:
        yield found
