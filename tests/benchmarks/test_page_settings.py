"""The table of settings has a row for every field."""

import importlib
from dataclasses import fields
from typing import Any

import pytest
from solo_server.settings import Settings
from support.paths import ROOT

PAGE = (ROOT / "docs/deployment.md").read_text()


@pytest.fixture
def page_settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("page_settings")


def test_every_setting_has_a_row_with_its_default() -> None:
    for field in fields(Settings):
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `SOLO_{field.name.upper()}` |")]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 5
        assert cells[4]
        if isinstance(field.default, int) and not isinstance(field.default, bool):
            assert cells[2] == f"`{field.default}`"


def test_a_row_has_range_default_and_unit(page_settings: Any) -> None:
    rows = "\n".join(page_settings.settings_table(None))
    for row in (
        "| `SOLO_PORT` | 0 to 65535 | `8000` | |",
        "| `SOLO_MAX_BODY_BYTES` | 1024 to 2147483648 | `20971520` | bytes |",
        "| `SOLO_BODY_BYTES_PER_S` | 1 to 1073741824 | `4096` | bytes/s |",
        "| `SOLO_DRAIN_SECONDS` | 0 to 3600 | `20` | s |",
        "| `SOLO_WORKSPACE_MIB` | 0 to 1048576 | `0` | MiB |",
        "| `SOLO_METRICS_OPEN` | `on`, `off` | `off` | |",
        "| `SOLO_CACHE` | path | | |",
    ):
        assert row in rows
