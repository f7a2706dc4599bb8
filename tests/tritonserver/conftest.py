"""Triton on a repository of the demo model, in each of its two forms, and our own server with the same bundle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served_demo import our_server, repository
from solo_export.triton import Network
from triton_server import Running, triton_server


@pytest.fixture(scope="session", params=["process", "models"])
def network(request: pytest.FixtureRequest) -> Network:
    chosen: Network = request.param
    return chosen


@pytest.fixture(scope="session")
def triton(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp(network)
    with triton_server(repository(folder, network), folder) as running:
        yield running


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of `solo serve`."""
    with our_server(tmp_path_factory.mktemp("ours")) as address:
        yield address
