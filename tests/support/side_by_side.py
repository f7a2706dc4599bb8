"""A pytest plugin that decides which tests run side by side in several processes (`pytest -n 2`, pytest-xdist).

The tests of a file stay in one process, which shares their fixtures. Files whose tests start servers or keep all cores busy are one
group, so that they never run beside each other. Tests marked `alone` measure time: `make test` runs them afterwards, with nothing
beside them. Groups that take long come first, so that no process waits for another at the end.
"""

from __future__ import annotations

from typing import Any  # Any: pytest-xdist has no types for its log

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from support.paths import ROOT

BUSY = ("tests/e2e/", "tests/bench/")
LONG = ("tests/golden/", *BUSY, "tests/export/", "tests/backends/gpu/", "tests/contract/", "tests/backends/cpu/")


class SideBySide(LoadScopeScheduling):
    """Distributes files, those of `BUSY` as one."""

    def _split_scope(self, nodeid: str) -> str:
        return "busy" if nodeid.startswith(BUSY) else nodeid.partition("::")[0]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: measures time; nothing may run beside it")
    config.option.loadscopereorder = False  # groups keep the order of the tests


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    return SideBySide(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long groups first; the tests of a file keep their order."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    place = item.path.relative_to(ROOT).as_posix() if item.path.is_relative_to(ROOT) else ""
    return next((rank for rank, folder in enumerate(LONG) if place.startswith(folder)), len(LONG))
