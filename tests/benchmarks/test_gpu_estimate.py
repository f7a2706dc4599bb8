"""Estimates are marked as estimates, match the current code, and stay within the limits of the data sheets."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

RECORDED = ROOT / "benchmarks" / "results" / "gpu_estimate.json"
AGAIN = "python benchmarks/gpu_estimate.py -o benchmarks/results/gpu_estimate.json"


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RECORDED.read_text())
    return content


def test_the_file_is_what_the_code_estimates(recorded: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "again.json"
    command = [sys.executable, "benchmarks/gpu_estimate.py", "-o", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all("estimate" in line for line in done.stdout.splitlines())
    again = json.loads(output.read_text())
    for name in ("assumptions", "scene", "gpus", "estimates"):
        assert again[name] == recorded[name], f"{name} differ: {AGAIN}"


def test_nothing_claims_to_have_run_on_a_gpu(recorded: dict[str, Any]) -> None:
    assert recorded["is_estimate"] is True
    assert recorded["ran_on_gpu"] is False
    assert recorded["hardware"]["gpu"] is None


def test_every_time_in_the_file_is_called_an_estimate_or_a_bound(recorded: dict[str, Any]) -> None:
    times = [name for name in _names(recorded["estimates"]) if re.search(r"_(ms|us|fps|s)$", name)]
    assert times
    assert {name for name in times if "estimate" not in name} == {"least_ms"}


def test_every_column_of_figures_in_the_page_says_estimate() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    block = page.split("<!-- figures: gpu_estimate -->\n")[1]
    first, _, *columns = [cell.strip() for cell in block.splitlines()[0].strip("|").split("|")]
    assert first.startswith("ESTIMATE")
    assert columns
    assert all("estimate" in column for column in columns)


def test_no_estimate_is_below_what_the_data_sheet_allows(recorded: dict[str, Any]) -> None:
    for entry in recorded["estimates"]:
        for estimate in entry["gpus"].values():
            for network in estimate["network"].values():
                assert network["estimate_ms"] > network["least_ms"] > 0
            assert estimate["estimate_ms"] > estimate["postprocess_estimate_ms"] > 0


def test_every_kernel_that_is_launched_is_estimated(recorded: dict[str, Any]) -> None:
    by_network = {entry["network"]: entry for entry in recorded["estimates"]}
    solo = by_network["SOLO R50"]["gpus"]["A10"]["kernels"]
    decoupled = by_network["Decoupled SOLO R50"]["gpus"]["A10"]["kernels"]
    assert {"project", "measure_cells", "intersect", "write_runs"} <= set(solo)
    assert {"project_taps", "axis_maps", "list_axes"} <= set(decoupled) - set(solo)
    assert all(0 < kernel["occupancy"] <= 1 for kernel in (solo | decoupled).values())


def _names(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in _names(item)]
    if isinstance(value, dict):
        return [*value, *(name for item in value.values() for name in _names(item))]
    return []
