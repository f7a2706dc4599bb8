"""The polygons benchmark runs, and its polygons are those of its masks."""

import json
import subprocess
import sys
from pathlib import Path

from support.paths import ROOT


def test_a_quick_run_measures_each_contender_on_equal_masks(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/polygons.py", "--quick", "-o", str(tmp_path / "polygons.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "polygons.json").read_text())
    assert found["are_filled_equal"] is True
    assert found["corners"] > 10_000
    assert list(found["median_ms"]) == ["polygons", "polygons_tolerance_1", "decode_masks", "opencv_contours"]
    assert all(ms > 0 for ms in found["median_ms"].values())
