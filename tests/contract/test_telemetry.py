"""The runtimes report nothing about their use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEFT_OUT = {
    "ORT_DISABLE_TELEMETRY",
    "CI",
    "XDG_CACHE_HOME",
}  # each disables the reporter of the runtime, or moves its files


def left_behind(statement: str, home: Path) -> list[Path]:
    """Files that a new interpreter leaves below `home`, the user's folder, after `statement`."""
    environment = {k: v for k, v in os.environ.items() if k not in LEFT_OUT}
    command = [sys.executable, "-B", "-c", statement]
    subprocess.run(command, env=environment | {"HOME": str(home), "NUMBA_CACHE_DIR": str(home / "numba")}, check=True)
    return [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "module", ["solo_server.backends.cpu.runtimes.onnxruntime", "solo_server.commands.serve", "solo_export.verify"]
)
def test_no_runtime_tells_its_makers_about_use(module: str, tmp_path: Path) -> None:
    assert left_behind(f"import {module}", tmp_path) == []


def test_without_the_servers_setting_the_runtime_leaves_a_device_id(tmp_path: Path) -> None:
    assert [path.name for path in left_behind("import onnxruntime", tmp_path) if path.name == "deviceid"] == [
        "deviceid"
    ]
