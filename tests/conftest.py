"""Fixtures of several rooms: bundles of small random networks. Only tests that need the network itself import torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch: with more threads than cores, waiting threads spin

import pytest
from solo_models.spec import Variant
from support.bundles import tiny_bundle
from support.specs import VARIANTS

if TYPE_CHECKING:
    from solo_models.bundle import BundleContent
    from solo_models.network import SoloNetwork

pytest_plugins = ["pytester", "support.not_run", "support.side_by_side"]
collect_ignore = [
    "gpu_packages",
    "container",
    "page",
    "tools",
    "tools_server",
    "kubernetes",
    "tritonserver",
    "ray_serve",
]
"""They have make targets of their own."""


@pytest.fixture(scope="session", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Variant:
    chosen: Variant = request.param
    return chosen


@pytest.fixture(scope="session")
def network(variant: Variant) -> SoloNetwork:
    from support.networks import tiny_network

    return tiny_network(variant)


@pytest.fixture(scope="session")
def content(network: SoloNetwork) -> BundleContent:
    from support.networks import bundle_content

    return bundle_content(network)


@pytest.fixture(scope="session")
def bundle_path(variant: Variant) -> Path:
    """The bundle of `network`. Tests share it between runs, and do not change it."""
    return tiny_bundle(variant)


@pytest.fixture(scope="session")
def solo_bundle() -> Path:
    """A bundle of the vanilla variant, for tests that need one and do not care which."""
    return tiny_bundle("solo")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio, the server's own."""
    return "asyncio"
