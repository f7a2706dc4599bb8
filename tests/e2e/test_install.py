"""The README's install line of the client, in an empty environment.

It downloads four small packages and the build backend, so it needs a package index, as `make test` does. `PIP_FLAGS` is passed on.
"""

import os
import re
import subprocess
import venv
from pathlib import Path

import pytest
from solo_models.install import install_command
from support.paths import ROOT

LINE = re.compile(r"`(pip install -c constraints\.txt -e '\.\[client\]')`")


class Environment:
    """A fresh virtual environment. Commands run in it as in a shell where it is active, in the checkout."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SOLO_"))}
        self._variables = {
            **inherited,
            "PATH": f"{folder / 'bin'}{os.pathsep}{inherited['PATH']}",
            "VIRTUAL_ENV": str(folder),
        }

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", line],
            capture_output=True, text=True, timeout=600, cwd=ROOT, env=self._variables, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    fresh = Environment(tmp_path_factory.mktemp("install") / "venv")
    line = LINE.search((ROOT / "README.md").read_text())
    assert line, "the README has no install line of the client"
    done = fresh.run(f"{line[1]} {os.environ.get('PIP_FLAGS', '')}")
    assert done.returncode == 0, f"{line[1]} failed; it needs a package index\n{done.stdout}{done.stderr}"
    return fresh


def test_the_readmes_line_installs_a_client_that_imports_this_checkout(environment: Environment) -> None:
    done = environment.run("python -c 'import httpx, numpy, solo_client; print(solo_client.__file__)'")
    assert done.stdout.strip() == str(ROOT / "client/solo_client/__init__.py"), done.stderr


def test_the_readmes_line_installs_the_pinned_versions(environment: Environment) -> None:
    pinned = set((ROOT / "constraints.txt").read_text().splitlines())
    frozen = environment.run("pip freeze --exclude-editable").stdout.splitlines()
    assert {"httpx", "numpy"} <= {line.split("==")[0] for line in frozen}
    assert set(frozen) <= pinned


def test_commands_without_their_packages_print_the_install_line(environment: Environment) -> None:
    assert environment.run("solo segment --help").returncode == 0
    for command, extra in (("serve", "server"), ("export x.pth -o out", "export")):
        done = environment.run(f"solo {command}")
        assert done.returncode == 2
        assert done.stderr.strip().endswith(install_command(extra))
        assert done.stderr.count("\n") == 1
