"""The folders of the server are floors: an import that goes up breaks a contract of import-linter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.paths import ROOT

SERVER = ROOT / "server" / "solo_server"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
UPWARD = (
    ("backends/cpu/pool.py", "solo_server.pipeline.pipeline"),
    ("pipeline/image.py", "solo_server.service.service"),
    ("service/admission.py", "solo_server.http.app"),
    ("http/bodies.py", "solo_server.commands.serve"),
    ("http/problems.py", "solo_server.ray_serve.options"),
    ("processes/supervisor.py", "solo_server.commands.serve"),
    ("observability/metrics.py", "solo_server.service.service"),
    ("commands/serve.py", "solo_server.triton.model"),
    ("system/cores.py", "solo_server.settings"),
    ("settings.py", "solo_server.backends.choose"),
    ("types.py", "solo_server.errors"),
    ("backends/cpu/backend.py", "solo_server.backends.gpu.backend"),
    ("backends/stopwatch.py", "solo_server.backends.choose"),
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The server's Python files in a folder of their own, which tests may change."""
    shutil.copytree(SERVER, tmp_path / "solo_server", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter with the layers of pyproject.toml on the server in `folder`."""
    layers = [contract for contract in CONTRACTS if contract["type"] == "layers"]
    lines = ["[importlinter]", "root_package = solo_server"]
    for number, contract in enumerate(layers):
        lines += [f"[importlinter:contract:{number}]", f"name = {contract['name']}", "type = layers"]
        lines += ["containers =", *(f"    {name}" for name in contract["containers"])]
        lines += ["layers =", *(f"    {layer}" for layer in contract["layers"])]
        lines += ["exhaustive = true"] if contract.get("exhaustive") else []
        if ignored := contract.get("exhaustive_ignores"):
            lines += ["exhaustive_ignores =", *(f"    {name}" for name in ignored)]
    (folder / "layers.ini").write_text("\n".join(lines))
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "layers.ini", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT / 'models'}", "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_no_import_goes_up(copy: Path) -> None:
    found = lint(copy)
    assert found.returncode == 0, found.stdout


def test_an_import_that_goes_up_is_found(copy: Path) -> None:
    for file, upper in UPWARD:
        path = copy / "solo_server" / file
        path.write_text(path.read_text() + f"\nimport {upper}\n")
    found = lint(copy)
    assert found.returncode == 1
    for file, upper in UPWARD:
        lower = "solo_server." + file.removesuffix(".py").replace("/", ".")
        assert f"{lower} -> {upper} " in found.stdout, f"{lower} -> {upper}"


def test_a_new_folder_needs_a_floor(copy: Path) -> None:
    (copy / "solo_server" / "attic").mkdir()
    (copy / "solo_server" / "attic" / "__init__.py").touch()
    assert lint(copy).returncode == 1
