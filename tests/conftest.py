"""Fixtures that tests of several rooms use: bundles of small random networks. torch is imported where one is made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from solo_models.bundle import BundleContent, write_bundle
from support.specs import VARIANTS

if TYPE_CHECKING:
    from solo_models.network import SoloNetwork

pytest_plugins = ["pytester", "support.not_run"]
collect_ignore = ["gpu_packages", "container"]  # which have commands of their own: make test-gpu-code, make image-test


@pytest.fixture(scope="session", params=VARIANTS)
def network(request: pytest.FixtureRequest) -> SoloNetwork:
    from support.networks import tiny_network

    return tiny_network(request.param)


@pytest.fixture(scope="session")
def content(network: SoloNetwork) -> BundleContent:
    from support.networks import bundle_content

    return bundle_content(network)


@pytest.fixture(scope="session")
def bundle_path(content: BundleContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / content.name, content)


@pytest.fixture(scope="session")
def solo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the vanilla variant, for tests that need one and do not care which."""
    from support.networks import bundle_content, tiny_network

    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny", bundle_content(tiny_network("solo")))
