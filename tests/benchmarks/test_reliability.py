"""The arithmetic of the reliability figures on small cases, and their page: what it shows, and what it refuses."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from solo_server.bench.load.loops import Shot
from support.images import encoded, smooth_image
from support.paths import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # the scripts there are not a package

import pages
from page_reliability import GOALS, RELIABILITY_TABLES, part_of
from page_results import BadResult, NotMeasured, Results
from pages import PAGES
from reliability import merge
from reliability_parts.closed import CONTENDERS, summary
from reliability_parts.faults import full_speed_after_s
from reliability_parts.figures import growth_percent, overload, ratios, tails
from reliability_parts.in_process import TASKS
from reliability_parts.mixed_images import mixed
from reliability_parts.side_by_side import agree

PAGE = "benchmarks/reliability.md"
SPREAD = {"median": 0.97, "min": 0.95, "max": 0.99}
TAILS = {"p50": 1.0, "p99": 2.0, "p99.9": 3.0, "max": 4.0}
LOAD = {"per_s": SPREAD, "ms": TAILS, "errors": 0, "cpu_ms": 90.0}
ABOUT = {
    **{"quick": False, "command": "python benchmarks/reliability.py", "commit": "abc", "date": "2026-11-26T01:00:00"},
    **{"others_before": 0.01, "hardware": {"cpu": "some", "cores": 2}, "versions": {"python": "3.11"}},
}
PARTS: dict[str, dict[str, Any]] = {
    "closed": {
        **{"per_s": dict.fromkeys(CONTENDERS, SPREAD), "generator_cpu_ms": SPREAD},
        **{"cpu_ms": dict.fromkeys(CONTENDERS, SPREAD), "ratios": dict.fromkeys(TASKS, SPREAD)},
    },
    "http_cpu": {
        "ms_a_request": dict.fromkeys(("closed_8", "closed_1", "open_15", "service_8", "bare_8"), SPREAD),
        "http_adds_ms": {"median": 0.6, "min": 0.5, "max": 0.7},
        "idle_ms_a_second": 1.0,
    },
    "trickle": {
        **{"requests": 600, "p50_ms": 60.0, "p95_ms": 70.0, "p99_ms": 96.0, "max_ms": 100.0, "ratio": 1.6},
        **{"late_ms": TAILS, "errors": {}},
    },
    "overload": {
        **{"capacity": {"before": 15.0, "after": 17.0}, "requests": 7000, "rate": 60.0, "goodput": 15.0},
        **{"goodput_share": 0.94, "answers": {"200": 1800, "503 overloaded": 5200}, "good_ms": TAILS},
        **{"refused_ms": TAILS, "late_ms": TAILS, "server_cpu_s": 200.0, "generator_cpu_s": 5.0, "others": 0},
        **{"in_time": 1800, "accepted": 1800, "in_time_share": 1.0, "deadline_ms": 5000, "server_errors": 0},
    },
    "side_by_side": {
        "contenders": {"ours 1x2": {"peak_rss_mib": 300.0, "1": LOAD, "8": LOAD}},
        **{"ratio": {"LitServe": SPREAD}, "p99_ratio": {"LitServe": 0.9}, "peers": {"litserve": "0.2"}},
    },
    "soak": {
        **{"every": 100, "rss_mib": [300.0] * 100, "count": 10_000, "sizes": 200, "elapsed_s": 700.0},
        **{"statuses": {"200": 10_000}, "growth_percent": 1.0, "growth_at_end_percent": 0.5},
    },
    "faults": {
        "terminated": {
            "rounds": 5, "callers": 12, "accepted": 99, "answered": 99, "lost": 0, "other": 0, "exit_statuses": [0] * 5
        },
        "worker_killed": {"not_run": "solo serve has no --workers"},
    },
    "event_loop": {
        "callers": 8,
        **{key: {"wake_ups": 9, "busy_ms": TAILS, "late_ms": TAILS} for key in ("loaded", "idle")},
    },
}  # fmt: skip


def test_ratios_are_of_rounds_not_of_sums() -> None:
    assert ratios([9, 20, 11], [10, 10, 10]) == {"median": 1.1, "min": 0.9, "max": 2.0}


def test_growth_is_from_the_settled_value_to_the_highest_later_one() -> None:
    assert growth_percent([100, 200, 206, 203], 1) == 3.0
    assert growth_percent([100, 200, 190, 180], 1) == 0.0


def test_growth_without_a_settled_value_is_refused() -> None:
    with pytest.raises(ValueError, match="no value 5"):
        growth_percent([100, 200], 5)


def test_tails_without_values_are_none() -> None:
    assert tails([], 50) == {"p50": None, "max": None}
    assert tails([1, 2, 4], 50) == {"p50": 2, "max": 4}


def test_overload_times_count_from_sending_and_every_response_counts_once() -> None:
    shots = [
        Shot(0, 5100, "", 200, 200),  # 4900 ms after it was sent: in time
        Shot(0, 5300, "", 200, 0),  # too late
        Shot(0, 70, "overloaded", 503, 50),
        Shot(0, 5000, "deadline_exceeded", 504, 0),
        Shot(0, 9, "internal", 500, 0),
        Shot(0, 1, "connection_lost", 0, 0),
    ]
    found = overload(shots, 5000)
    assert (found["requests"], found["accepted"], found["in_time"], found["in_time_share"]) == (6, 5, 1, 0.2)
    assert found["refused_ms"] == {"p50": 20, "p99": 20, "max": 20}
    assert (found["others"], found["server_errors"]) == (3, 1)
    assert sum(found["answers"].values()) == 6


def test_without_accepted_requests_there_is_no_share() -> None:
    assert overload([Shot(0, 5, "overloaded", 503, 0)], 5000)["in_time_share"] is None


def test_the_closed_loop_compares_contenders_within_each_round() -> None:
    costs = {"cpu_ms": 100.0}
    rounds = [
        {
            "http": {"per_s": rate, "cpu_ms": 101.0, "generator_cpu_ms": 1.0, "foreign_share": None},
            "run_to_completion": {"per_s": 10.0, **costs},
            "overlapped": {"per_s": 9.5, **costs},
            "one_by_one": {"per_s": 8.0, **costs},
        }
        for rate in (9.0, 9.5, 10.0)
    ]
    found = summary(rounds)
    assert found["ratios"]["run_to_completion"] == {"median": 0.95, "min": 0.9, "max": 1.0}
    assert found["ratios"]["overlapped"]["median"] == 1.0
    assert found["http_adds_cpu_ms"]["median"] == 1.0


def test_full_speed_is_back_in_the_first_whole_second_after_a_slow_one() -> None:
    rates = [10] * 5 + [4, 5, 10, 10]
    shots = [Shot(second + n / 20, 0.0, "") for second, rate in enumerate(rates) for n in range(rate)]
    assert full_speed_after_s(shots, 5.0) == 2.0
    assert full_speed_after_s(shots[:50], 5.0) == 0.0
    assert full_speed_after_s([*shots[:59], Shot(8.0, 0.0, "")], 5.0) is None


def test_mixed_images_depend_only_on_the_seed() -> None:
    photograph = encoded(smooth_image(90, 120), "JPEG")
    assert mixed([photograph], 6, seed=1) == mixed([photograph], 6, seed=1)
    assert mixed([photograph], 6, seed=1) != mixed([photograph], 6, seed=2)


def test_instances_agree_up_to_the_last_digits_of_their_scores() -> None:
    one = {"label": "person", "score": 0.5, "area": 7}
    assert agree([[one]], [[{**one, "score": 0.500001}]])
    assert not agree([[one]], [[{**one, "score": 0.5001}]])
    assert not agree([[one]], [[{**one, "area": 8}]])
    assert not agree([[one]], [[one, one]])


def test_a_part_replaces_itself_and_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "results" / "reliability.json"
    for name, value in (("soak", 1), ("closed", 2), ("soak", 3)):
        merge(path, name, {"value": value})
    assert json.loads(path.read_text()) == {"parts": {"soak": {"value": 3}, "closed": {"value": 2}}}


def _results(folder: Path, **changed: dict[str, Any]) -> Results:
    parts = {name: {**ABOUT, **part, **changed.get(name, {})} for name, part in PARTS.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reliability.json").write_text(json.dumps({"parts": parts}))
    return Results(folder)


def test_every_goal_has_a_figure_and_a_verdict(tmp_path: Path) -> None:
    results = _results(tmp_path)
    judged = {g.what: g.found(part_of(results, g.part)) for g in GOALS if g.part and "kill -9" not in g.what}
    missed = {what for what, (reached, _) in judged.items() if not reached}
    assert len(judged) == 12
    assert missed == {
        "HTTP: processor time added per request",
        "trickle, 5 requests/s: p99 / p50",
        "images/s relative to LitServe and BentoML, 8 callers",
    }


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("overload", {"in_time": 1799, "in_time_share": 0.9994}),
        ("overload", {"others": 1}),
        ("overload", {"refused_ms": {**TAILS, "p99": 51.0}}),
        ("overload", {"server_errors": 1}),
        ("soak", {"growth_percent": 3.1}),
        ("faults", {"terminated": {"accepted": 9, "answered": 8, "exit_statuses": [0]}}),
        ("faults", {"terminated": {"accepted": 9, "answered": 9, "exit_statuses": [0, 1]}}),
        ("event_loop", {"loaded": {"wake_ups": 9, "busy_ms": {**TAILS, "max": 5.1}, "late_ms": TAILS}}),
    ],
)
def test_a_figure_beyond_its_goal_is_not_met(tmp_path: Path, part: str, change: dict[str, Any]) -> None:
    before, after = _results(tmp_path / "a"), _results(tmp_path / "b", **{part: change})
    goals = [g for g in GOALS if g.part == part and "kill -9" not in g.what]
    assert all(goal.found(part_of(before, part))[0] for goal in goals)
    assert not all(goal.found(part_of(after, part))[0] for goal in goals)


def test_quick_figures_and_paths_are_refused_and_missing_parts_named(tmp_path: Path) -> None:
    results = _results(tmp_path, soak={"quick": True}, closed={"command": "python x --images /home/me"})
    with pytest.raises(BadResult, match="soak: a quick run"):
        part_of(results, "soak")
    with pytest.raises(BadResult, match="absolute path"):
        part_of(results, "closed")
    with pytest.raises(NotMeasured, match=r"reliability.json: other"):
        part_of(results, "other")


def test_the_page_is_written_from_the_file_and_a_quick_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in PAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    _results(tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(sys, "argv", ["pages.py", "--root", str(tmp_path)])
    assert pages.main() == 0
    page = (tmp_path / PAGE).read_text()
    assert "| trickle, 5 requests/s: p99 / p50 | <= 1.5 | 1.60 (96 ms, 60 ms) | **no** |" in page
    assert "| kill -9 of one of two workers: the server continues and replaces it | yes | not measured yet | |" in page
    assert "| SIGTERM, 5 times, 12 callers | 99 accepted, 99 answered, 0 lost |" in page
    _results(tmp_path / "benchmarks" / "results", soak={"quick": True})
    assert pages.main() == 2
    assert "soak: a quick run" in capsys.readouterr().err


def test_the_page_has_every_table_and_every_test_that_it_names_exists() -> None:
    page = (ROOT / PAGE).read_text()
    assert re.findall(r"<!-- figures: (\w+) -->", page) == [table.__name__ for table in RELIABILITY_TABLES]
    named = re.findall(r"`(tests/[\w/.]+)::(\w+)`", page)
    assert len(named) >= 10
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text()
