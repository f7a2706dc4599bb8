"""Cores that a container may use, from the files of its control group."""

import os
from pathlib import Path

import pytest
from solo_server.system import cores as counting
from solo_server.system.cores import cores, share_of_cores


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000", 2),
        ("5000 100000", 1),
        ("max 100000", 8),
        ("1600000 100000", 8),
        ("", 8),
    ],
)
def test_a_quota_of_version_2_limits_the_cores(tmp_path: Path, content: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert cores(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("300000\n", 3), ("-1", 8), ("50000", 1)])
def test_a_quota_of_version_1_limits_the_cores(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(tmp_path) == expected


def test_without_control_groups_the_affinity_decides(tmp_path: Path) -> None:
    assert cores(tmp_path) == 8


@pytest.mark.parametrize(("sharing", "expected"), [(1, 8), (3, 2), (8, 1), (20, 1)])
def test_workers_and_replicas_get_a_share_each(sharing: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "cores", lambda: 8)
    assert share_of_cores(sharing) == expected
