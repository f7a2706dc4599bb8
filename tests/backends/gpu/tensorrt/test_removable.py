"""TensorRT lies behind one module, `tensorrt/open.py`; the rest of the server works where the folder is missing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import solo_server

SERVER = Path(solo_server.__file__).parent
FOLDER = "solo_server.backends.gpu.tensorrt"
FRONT = f"{FOLDER}.open"


def inner_imports(source: str) -> Iterator[str]:
    """Modules of the folder that `source` imports, but for the one in front."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == FRONT:
            continue
        elif isinstance(node, ast.ImportFrom):
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in named if f"{name}.".startswith(f"{FOLDER}.") and name != FRONT)


def test_no_module_outside_the_folder_imports_an_inner_module_of_it() -> None:
    outside = [path for path in SERVER.rglob("*.py") if path.parent != SERVER / "backends" / "gpu" / "tensorrt"]
    assert len(outside) > 100
    found = {str(path.relative_to(SERVER)): [*inner_imports(path.read_text())] for path in outside}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        f"from {FOLDER}.build import TensorRt",
        f"from {FOLDER} import cache",
        f"import {FOLDER}.profiles",
        "from solo_server.backends.gpu import tensorrt",
    ],
)
def test_an_inner_import_would_be_found(line: str) -> None:
    assert [*inner_imports(f"def f():\n    {line}\n")]
    assert not [*inner_imports(f"from {FRONT} import open_tensorrt\nimport {FRONT}")]


def test_modules_that_open_gpus_are_imported_without_the_folder() -> None:
    modules = ("backends.gpu.open", "backends.choose", "selftest.command", "commands.build_engine")
    imports = "; ".join(f"import solo_server.{module}" for module in modules)
    subprocess.run([sys.executable, "-c", f"import sys; sys.modules['{FOLDER}'] = None; {imports}"], check=True)
