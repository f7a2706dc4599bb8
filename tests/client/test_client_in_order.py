"""Jobs in several threads, results in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from solo_client.command import in_order as module
from solo_client.command.in_order import AHEAD, in_order

WAIT_S = 30.0


@pytest.mark.parametrize("max_concurrency", [1, 2, 7])
def test_results_come_in_the_order_of_the_jobs(max_concurrency: int) -> None:
    def work(job: int) -> int:
        time.sleep(0.002 * (job % 3 == 0))
        return job * job

    assert list(in_order(work, range(50), max_concurrency)) == [job * job for job in range(50)]


def test_max_concurrency_jobs_run_at_a_time() -> None:
    together = threading.Barrier(3)
    assert len(list(in_order(lambda _: together.wait(WAIT_S), range(6), 3))) == 6


def test_the_first_result_is_yielded_before_later_jobs_start() -> None:
    begun: list[int] = []
    with_threads = in_order(lambda job: begun.append(job) or job, range(10_000), 2)
    assert next(with_threads) == 0
    with_threads.close()
    assert len(begun) <= AHEAD * 2


def test_at_most_one_window_of_results_is_kept() -> None:
    taken = 0

    def jobs() -> Iterator[int]:
        nonlocal taken
        for job in range(1, 1001):
            taken = job
            yield job

    for number, _ in enumerate(in_order(lambda job: job, jobs(), 2), start=1):
        assert taken - number < AHEAD * 2


@pytest.mark.parametrize("max_concurrency", [1, 3])
def test_an_error_is_raised_in_place_of_its_result(max_concurrency: int) -> None:
    def work(job: int) -> int:
        if job == 5:
            raise ZeroDivisionError
        return job

    results = in_order(work, range(100), max_concurrency)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_closing_early_does_not_wait_for_a_hanging_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.05)
    hanging, begun = threading.Event(), threading.Event()

    def work(job: int) -> int:
        if job:
            begun.set()
            hanging.wait(WAIT_S)
        return job

    with_threads = in_order(work, range(4), 2)
    assert next(with_threads) == 0
    assert begun.wait(WAIT_S)
    start = time.monotonic()
    with_threads.close()
    assert time.monotonic() - start < WAIT_S / 2
    hanging.set()


def test_closing_early_lets_running_jobs_finish() -> None:
    ended: list[int] = []
    begun = threading.Event()

    def work(job: int) -> None:
        if job:
            begun.set()
            time.sleep(0.05)
            ended.append(job)

    with_threads = in_order(work, range(2), 2)
    next(with_threads)
    begun.wait(WAIT_S)
    with_threads.close()
    assert ended == [1]
