"""The arithmetic of benchmarks/segment_folder.py, without any measurement."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # the scripts there are not a package

from segment_folder import summary


def test_rates_are_compared_with_the_rate_in_process_by_round() -> None:
    rounds = [
        {"in_process": 20.0, "segment": 19.0},
        {"in_process": 12.0, "segment": 12.0},
    ]
    found = summary(rounds)
    assert found["ratios"]["segment"] == {"median": 0.975, "min": 0.95, "max": 1.0}
    assert found["per_s"]["in_process"] == {"median": 16.0, "min": 12.0, "max": 20.0}
