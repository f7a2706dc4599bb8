"""Every install line of the documentation and of messages has one form, which works: the project is on no package index."""

import re
import tomllib
from pathlib import Path

import pytest
from solo_client.command import segmenters
from solo_models.install import install_command

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docker-compose.yml", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = sorted(path for room in ("models", "export", "server", "client") for path in (ROOT / room).rglob("*.py"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
FORM = re.compile(r"pip install -c constraints\.txt (?:-e )?'\.\[([a-z,]+)\]'")
ASKS_FOR_US = re.compile(r"pip install [^`\n#]*(?:solo-inference|'?\.\[|\s\.(?:\s|$))[^`\n#]*")

NEEDED = {
    "engines.md": "client,openvino",
    "export.md": "server,client,export",
    "from-mmdet.md": "server,client,export",
    "from-official.md": "server,client,export",
    "gpu.md": "gpu",
    "operations.md": "otel",
}


def _asked(path: Path) -> list[str]:
    return [found[0] for found in ASKS_FOR_US.finditer(path.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_install_from_the_checkout_and_name_extras_that_exist(page: Path) -> None:
    for line in _asked(page):
        found = FORM.match(line)
        assert found, line
        assert set(found[1].split(",")) <= EXTRAS.keys(), line


def test_the_pages_of_exports_engines_gpus_and_traces_say_how_to_install_what_they_need() -> None:
    told = {page.name: set(FORM.findall(page.read_text())) for page in PAGES}
    assert told["README.md"] >= {"server,client,export", "client", "openvino"}
    assert told["deployment.md"] >= {"server,client", "gpu"}
    for page, extras in NEEDED.items():
        assert told[page] == {extras}


@pytest.mark.parametrize("page", [p for p in PAGES if "export]'" in p.read_text()], ids=lambda path: path.name)
def test_where_torch_is_installed_its_cpu_build_is_named_beside_it(page: Path) -> None:
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        if "export]'" in line:
            assert "CPU build" in "\n".join(lines[number : number + 9])


def test_only_one_place_of_each_package_writes_an_install_line_of_ours() -> None:
    writing = {path.relative_to(ROOT).as_posix() for path in SOURCES if "constraints.txt" in path.read_text()}
    assert writing == {"models/solo_models/install.py", "client/solo_client/command/segmenters.py"}
    assert [path for path in SOURCES if "'solo-inference[" in path.read_text()] == []


@pytest.mark.parametrize("extra", EXTRAS)
def test_client_and_server_suggest_the_same_command(extra: str) -> None:
    assert segmenters.INSTALL.format(extra) == install_command(extra)
    assert FORM.match(install_command(extra))


def test_messages_ask_for_extras_that_exist() -> None:
    asked = {name for path in SOURCES for name in re.findall(r"install_command\(['\"](\w+)", path.read_text())}
    asked |= {name for path in SOURCES for name in re.findall(r"INSTALL\.format\(['\"](\w+)", path.read_text())}
    assert asked == {"export", "gpu", "openvino", "otel", "client", "server"}
    assert asked <= EXTRAS.keys()
