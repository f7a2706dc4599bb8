"""The simulation of a fleet, against the theory of queues and the autoscaler's rules."""

from __future__ import annotations

import math
import random
import sys
from dataclasses import replace
from statistics import mean

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import fleet
from capacity import Replica, answer_s, erlang_c
from fleet_model import Autoscaler, Events, Fleet, Outcome, simulate

ONE = Fleet(nodes=1, slots=1, max_waiting=10_000, start_s=0.0, balancer="random")
NO_SCALING = Autoscaler(lowest=1, highest=1, target=1.0, down_after_s=60.0)


def _run(
    settings: Fleet, per_s: float, times: tuple[float, ...], until_s: float = 4000.0, **options: object
) -> Outcome:
    scaler, events = options.get("scaler", NO_SCALING), options.get("events", Events())
    assert isinstance(scaler, Autoscaler)
    assert isinstance(events, Events)
    return simulate(settings, scaler, events, lambda _: per_s, times, until_s, seed=1)


def _times(outcome: Outcome) -> list[float]:
    return [time for times in outcome.answers_s.values() for time in times]


@pytest.mark.parametrize("slots", [1, 3])
def test_random_times_wait_as_erlang_says(slots: int) -> None:
    numbers = random.Random(5)  # noqa: S311
    times = tuple(numbers.expovariate(10.0) for _ in range(100_000))
    rate = 0.7 * 10.0 * slots
    wait_s = erlang_c(slots, 0.7 * slots) / (10.0 * slots - rate)
    found = _run(replace(ONE, slots=slots), rate, times, until_s=12_000.0)
    assert mean(_times(found)) == pytest.approx(0.1 + wait_s, rel=0.06)


@pytest.mark.parametrize("slots", [1, 2, 8])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_the_capacity_model_is_near_the_simulation(slots: int, share: float) -> None:
    replica = Replica(images_per_s=10.0 * slots, slots=slots, cores=slots, memory_mib=1.0)
    load = 2 / 3 * replica.images_per_s
    found = _run(replace(ONE, slots=slots), load, (0.1,))
    assert answer_s(replica, load, share) * 1e3 == pytest.approx(found.quantile_ms(share), rel=0.2)


def test_every_image_is_answered_refused_or_lost() -> None:
    settings = Fleet(nodes=3, slots=2, max_waiting=4, start_s=5.0, balancer="least")
    scaler = Autoscaler(lowest=2, highest=5, target=2.0, down_after_s=60.0)
    found = _run(settings, 40.0, (0.1, 0.2), 600.0, scaler=scaler, events=Events(node_lost_s=300.0))
    assert found.arrived == found.answered + found.refused + found.lost
    assert found.refused > 0
    assert found.lost > 0


def test_a_queue_bounds_the_time_of_an_answer() -> None:
    found = _run(replace(ONE, max_waiting=5), 20.0, (0.1,), 600.0)  # twice what it can do
    assert max(_times(found)) <= 0.5 + 1e-9
    assert found.refused / found.arrived == pytest.approx(0.5, abs=0.05)


def test_a_slow_node_takes_longer() -> None:
    found = _run(replace(ONE, nodes=2), 2.0, (0.1,), 1200.0, scaler=replace(NO_SCALING, lowest=2, highest=2),
                 events=Events(node_slow_s=600.0, slow_factor=5.0))  # fmt: skip
    times = found.answers_s
    assert max(times[5]) < 0.5 <= max(times[15])


@pytest.mark.parametrize(
    ("pods", "images", "wanted"), [(4, 2.0, 4), (4, 2.15, 4), (4, 3.0, 6), (4, 1.0, 2), (4, 0.1, 2), (4, 90.0, 8)]
)
def test_the_autoscaler_wants_what_kubernetes_would(pods: int, images: float, wanted: int) -> None:
    """ceil(pods * metric / target); nothing within a tenth; limits 2 and 8."""
    assert Autoscaler(2, 8, 2.0, 300.0).wanted(pods, images) == wanted


def test_pods_come_with_load_and_leave_after_it() -> None:
    settings = Fleet(nodes=4, slots=2, max_waiting=20, start_s=5.0, balancer="least")
    scaler = Autoscaler(lowest=1, highest=6, target=2.0, down_after_s=60.0)
    loads = {True: 45.0, False: 0.5}
    found = simulate(settings, scaler, Events(), lambda at_s: loads[at_s < 600], (0.1,), 1800.0, seed=2)
    assert 3 <= found.most_pods <= 6
    assert found.pod_seconds < 0.7 * found.most_pods * 1800


def test_more_pods_start_no_faster_than_the_policy_allows() -> None:
    """One pod becomes three in the first 30 s, not eight."""
    settings = Fleet(nodes=4, slots=1, max_waiting=50, start_s=0.0, balancer="least")
    scaler = Autoscaler(lowest=1, highest=8, target=1.0, down_after_s=600.0)
    assert simulate(settings, scaler, Events(), lambda _: 60.0, (0.1,), 44.0, seed=3).most_pods == 3


def test_the_same_seed_gives_the_same_day() -> None:
    first, second = (_run(ONE, 5.0, (0.1, 0.15), 300.0) for _ in range(2))
    assert first.answers_s == second.answers_s


def test_settings_that_are_compared_differ_and_the_load_has_its_peak_at_noon() -> None:
    assert len(set(fleet.SETTINGS.values())) == len(fleet.SETTINGS)
    assert fleet.rate(fleet.DAY_S / 2) == pytest.approx(fleet.HIGH)
    assert fleet.rate(0.0) == pytest.approx(fleet.LOW)
    assert math.isclose(fleet.rate(fleet.SPIKE[0]), 2 * fleet.rate(fleet.SPIKE[0] - 1e-6), rel_tol=1e-3)


def test_measured_times_are_those_of_one_core() -> None:
    times = fleet.service_times()
    assert len(times) >= 10
    assert 0.05 < mean(times) < 0.5
