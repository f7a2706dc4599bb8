"""The package's public names, and which modules their import loads."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import solo_client
import solo_results
from solo_client import errors

SOURCES = sorted(Path(solo_client.__file__).parent.rglob("*.py"))


def test_exported_names_are_these() -> None:
    others = {
        "AsyncSoloClient",
        "CocoMask",
        "CocoResult",
        "Instance",
        "Options",
        "Problem",
        "Result",
        "RleMask",
        "SoloClient",
        "coco_category_ids",
    }
    raised = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, errors.SoloError)}
    assert set(solo_client.__all__) == others | raised
    assert solo_client.__all__ == sorted(solo_client.__all__)


@pytest.mark.parametrize("name", solo_client.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(solo_client, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Client'"):
        solo_client.Client  # noqa: B018


def test_the_command_is_declared_without_httpx_and_numpy() -> None:
    """`solo --help` must be fast, and `solo segment` must work with the extra `server` alone."""
    assert _loaded_after("import solo_client.segment") == "[]\n"


def test_the_package_is_imported_without_httpx_and_numpy() -> None:
    assert _loaded_after("import solo_client; solo_client.Result; solo_client.Overloaded") == "[]\n"


def test_the_clients_bring_httpx_and_no_numpy() -> None:
    assert _loaded_after("import solo_client; solo_client.SoloClient") == "['httpx']\n"


def _loaded_after(statement: str) -> str:
    code = f"{statement}; import sys; print(sorted({{'httpx', 'numpy'}} & set(sys.modules)))"
    root = os.pathsep.join(str(Path(package.__file__).parent.parent) for package in (solo_client, solo_results))
    done = subprocess.run(  # our own command
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": root}
    )
    return done.stdout


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_imports_are_the_standard_library_and_httpx(source: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"solo_client", "solo_results"}
    allowed |= {"client": {"httpx"}, "transport": {"httpx"}}.get(source.stem, set())
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    assert names <= allowed
