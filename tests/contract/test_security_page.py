"""Every claim of docs/security.md names a test that exists."""

import re

import pytest
from solo_server.settings import Settings
from support.paths import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
ROWS = [line.split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| ") and "attack |" not in line]


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED)))
def test_the_tests_that_the_page_names_exist(file: str, test: str) -> None:
    assert f"\ndef {test}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip())
def test_every_defence_names_its_test_and_its_file(row: list[str]) -> None:
    _, defence, where, test = (cell.strip() for cell in row)
    assert defence
    assert re.fullmatch(r"(`tests/[\w/]+\.py::\w+`(, )?)+", test)
    for file in re.findall(r"`([\w/]+\.py)`", where):
        assert (ROOT / "server" / "solo_server" / file).exists()


def test_the_settings_that_the_page_names_are_known() -> None:
    fields = {f"SOLO_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert set(re.findall(r"SOLO_[A-Z_]+", PAGE)) <= fields
