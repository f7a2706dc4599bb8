"""All install lines in the documentation and in messages have one form that works: the project is on no package index."""

import re
import tomllib
from pathlib import Path

import pytest
from solo_client.command import segmenters
from solo_models.install import install_command
from support.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "docker-compose.yml", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = sorted(path for root in ("models", "export", "server", "client") for path in (ROOT / root).rglob("*.py"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
FORM = re.compile(r"pip install -c constraints\.txt (?:-e )?'\.\[([a-z,]+)\]'")
INSTALLS_SOLO = re.compile(r"pip install [^`\n#]*(?:solo-inference|'?\.\[|\s\.(?:\s|$))[^`\n#]*")

NEEDED = {
    "engines.md": "client,openvino",
    "export.md": "server,client,export",
    "from-mmdet.md": "server,client,export",
    "from-official.md": "server,client,export",
    "gpu.md": "gpu",
    "operations.md": "otel",
}


def _install_lines(path: Path) -> list[str]:
    return [found[0] for found in INSTALLS_SOLO.finditer(path.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_install_from_the_checkout_and_name_extras_that_exist(page: Path) -> None:
    for line in _install_lines(page):
        found = FORM.match(line)
        assert found, line
        assert set(found[1].split(",")) <= EXTRAS.keys(), line


def test_pages_about_optional_parts_name_the_extras_to_install() -> None:
    extras_by_page = {page.name: set(FORM.findall(page.read_text())) for page in PAGES}
    assert extras_by_page["README.md"] >= {"server,client,export", "client", "openvino"}
    assert extras_by_page["deployment.md"] >= {"server,client", "gpu"}
    for page, extras in NEEDED.items():
        assert extras_by_page[page] == {extras}


@pytest.mark.parametrize("page", [p for p in PAGES if "export]'" in p.read_text()], ids=lambda path: path.name)
def test_install_lines_with_torch_mention_its_cpu_build(page: Path) -> None:
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        if "export]'" in line:
            assert "CPU build" in "\n".join(lines[number : number + 9])


def test_each_package_has_one_source_of_install_commands() -> None:
    writing = {path.relative_to(ROOT).as_posix() for path in SOURCES if "constraints.txt" in path.read_text()}
    assert writing == {"models/solo_models/install.py", "client/solo_client/command/segmenters.py"}
    assert [path for path in SOURCES if "'solo-inference[" in path.read_text()] == []


@pytest.mark.parametrize("extra", EXTRAS)
def test_client_and_server_suggest_the_same_command(extra: str) -> None:
    assert segmenters.INSTALL.format(extra) == install_command(extra)
    assert FORM.match(install_command(extra))


def test_messages_name_extras_that_exist() -> None:
    named = {name for path in SOURCES for name in re.findall(r"install_command\(['\"](\w+)", path.read_text())}
    named |= {name for path in SOURCES for name in re.findall(r"INSTALL\.format\(['\"](\w+)", path.read_text())}
    assert named == {"export", "gpu", "openvino", "otel", "client", "server", "video", "ray"}
    assert named <= EXTRAS.keys()
