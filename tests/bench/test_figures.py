"""Figures compared with numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest
from solo_server.bench.engine_figures import best_matmul_gflop_per_s, rates_of
from solo_server.bench.figures import after_towers_ms, figures_of, foreign_share, percentile, ratio_to
from solo_server.bench.samples import Sample


def _sample(total_ms: float, number: int = 0, **changes: Any) -> Sample:
    fields = {
        "run": number,
        "round": number,
        "task": 0,
        "stages_ms": {},
        "instances": 1,
        "cpu_s": 0.0,
        "wall_s": total_ms / 1e3,
        "foreign_cpu_s": 0.0,
    }
    return Sample(total_ms=total_ms, **(fields | changes))


@pytest.mark.parametrize("percent", [0, 10, 50, 90, 99, 100])
def test_percentiles_are_numpys(percent: int) -> None:
    values = [9.0, 1.0, 4.0, 4.0, 25.0, 16.0]
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_the_percentile_of_one_value_is_that_value() -> None:
    assert percentile([3.0], 99) == 3.0


def test_images_a_second_are_the_mean_over_runs_not_over_images() -> None:
    samples = [_sample(100, run=0), _sample(100, run=0), _sample(50, run=1)]
    figures = figures_of(samples, cores=2, peak_rss_mib=None)
    assert figures.fps_of_runs == (10.0, 20.0)
    assert figures.fps == 15.0
    assert figures.median_ms == 100
    assert figures.mean_ms == pytest.approx(250 / 3, abs=1e-3)


def test_ratios_compare_medians_and_rounds_that_ran_side_by_side() -> None:
    first = [_sample(10, 0), _sample(20, 1), _sample(10, 2)]
    other = [_sample(30, 0), _sample(80, 1), _sample(20, 2)]
    ratio = ratio_to(first, other, 2, (100.0, 250.0))
    assert (ratio.time, ratio.time_min, ratio.time_max, ratio.memory) == (3.0, 2.0, 4.0, 2.5)


def test_an_incomplete_round_is_not_compared() -> None:
    first = [_sample(10, 0), _sample(10, 0, task=1), _sample(10, 1), _sample(10, 1, task=1)]
    other = [_sample(20, 0), _sample(20, 0, task=1), _sample(90, 1)]
    assert ratio_to(first, other, 2, (None, None)).time_max == 2.0


def test_stages_are_medians_and_a_missing_stage_counts_as_zero() -> None:
    samples = [_sample(5, stages_ms={"decode": 1.0, "masks": 4.0}), _sample(1, stages_ms={"decode": 1.0, "total": 1.0})]
    assert figures_of(samples, 2, None).stages_ms == {"decode": 1.0, "masks": 2.0}


@pytest.mark.parametrize(
    ("stages_ms", "expected"),
    [
        ({"towers": 9.0, "masks": 1.0, "nms": 2.0, "encode": 4.0}, 7.0),
        ({"towers": 9.0, "after_towers": 3.0}, 3.0),
        ({"network": 9.0, "postprocess": 3.0, "encode": 1.0}, None),  # the last convolution is inside the network
    ],
)
def test_time_after_the_towers(stages_ms: dict[str, float], expected: float | None) -> None:
    assert after_towers_ms(stages_ms) == expected


def test_the_share_of_other_processes_is_of_all_cores_and_never_negative() -> None:
    busy = [_sample(1000, foreign_cpu_s=0.3), _sample(1000, foreign_cpu_s=-0.1)]
    assert foreign_share(busy, cores=2) == pytest.approx(0.05)
    assert foreign_share([_sample(1000, foreign_cpu_s=-0.1)], cores=2) == 0
    assert foreign_share([_sample(1000, foreign_cpu_s=None)], cores=2) is None


def test_quiet_samples_are_those_with_little_load_from_other_processes() -> None:
    noisy = [_sample(9000, foreign_cpu_s=3.0), _sample(1000, foreign_cpu_s=0.2)]
    calm = [_sample(100, foreign_cpu_s=0.01), _sample(200, foreign_cpu_s=-0.01), _sample(300, foreign_cpu_s=0.04)]
    figures = figures_of([*noisy, *calm], cores=2, peak_rss_mib=None)
    assert (figures.quiet_samples, figures.quiet_median_ms, figures.median_ms) == (3, 200, 300)
    assert figures_of([*noisy, *calm[:2]], 2, None).quiet_median_ms is None  # too few
    assert figures_of([_sample(5, foreign_cpu_s=None)] * 3, 2, None).quiet_samples == 3
    assert ratio_to(calm, [_sample(400, foreign_cpu_s=0.0)] * 3 + noisy, 2, (None, None)).quiet_time == 2.0


def test_rates_count_every_image_of_a_batch() -> None:
    figures = figures_of([_sample(200, stages_ms={"categories": 100.0, "unknown": 1.0})], 2, None)
    total, categories = rates_of(figures, 4, {"total": 5.0, "categories": 2.0}, best=200.0)
    assert (total.part, total.gflop_per_s, total.share) == ("total", 100.0, 0.5)
    assert (categories.part, categories.gflop_per_s) == ("categories", 80.0)


def test_the_best_matrix_product_is_the_best_of_all_sizes_and_rounds() -> None:
    rounds = [_sample(1, stages_ms={"1000": 20.0, "500": 1.0}), _sample(1, stages_ms={"1000": 10.0, "500": 2.0})]
    assert best_matmul_gflop_per_s(rounds) == 250.0
    assert best_matmul_gflop_per_s([]) is None
