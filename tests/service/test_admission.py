"""Limits on waiting images, and `Retry-After`."""

import pytest
from solo_server.errors import Overloaded
from solo_server.service.admission import Admission


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _retry_after_s(admission: Admission) -> int:
    with pytest.raises(Overloaded) as caught:
        admission.reserve()
    return caught.value.retry_after_s


def test_retry_after_is_the_time_to_answer_all_waiting_images_at_the_recent_throughput() -> None:
    clock = Clock()
    admission = Admission(10, 1000, clock=clock)
    for _ in range(10):
        admission.reserve()
    assert _retry_after_s(admission) == 1  # no throughput is known yet
    for _ in range(4):
        clock.now += 0.5
        admission.answered()
        admission.release(1, 0)
        admission.reserve()
    assert _retry_after_s(admission) == 5  # ten at two a second
    clock.now += 3
    assert _retry_after_s(admission) == 13  # no answer since: 1.25 s each
    clock.now += 1000
    assert _retry_after_s(admission) == 60


def test_idle_time_does_not_count_for_the_throughput() -> None:
    clock = Clock()
    admission = Admission(2, 1000, clock=clock)
    admission.reserve()
    clock.now = 1
    admission.answered()
    admission.release(1, 0)
    clock.now = 1000
    admission.reserve()
    admission.reserve()
    clock.now = 1000.5
    admission.answered()
    admission.release(1, 0)
    admission.reserve()
    assert _retry_after_s(admission) == 1


def _busy(admission: Admission, clock: Clock, answers: int) -> None:
    """Ten images wait, and two a second are answered."""
    for _ in range(10):
        admission.reserve()
    for _ in range(answers):
        clock.now += 0.5
        admission.answered()
        admission.release(1, 0)
        admission.reserve()


def test_an_image_that_would_miss_its_deadline_is_refused_at_once() -> None:
    clock = Clock()
    admission = Admission(100, 1000, clock=clock)
    _busy(admission, clock, 8)
    with pytest.raises(Overloaded) as caught:
        admission.reserve(6.8)  # eleven at two a second take 5.5 s, plus a quarter as a margin
    assert (caught.value.reason, caught.value.retry_after_s) == ("deadline_near", 5)
    admission.reserve(6.9)
    assert admission.images == 11


def test_a_few_answers_and_abandoned_images_give_no_throughput() -> None:
    clock = Clock()
    admission = Admission(100, 1000, clock=clock)
    _busy(admission, clock, 7)
    clock.now += 10
    admission.release(1, 0)  # its caller disconnected
    admission.reserve(0.001)
    assert admission.images == 10


def test_a_busy_period_starts_with_the_throughput_of_the_one_before() -> None:
    clock = Clock()
    admission = Admission(100, 1000, clock=clock)
    _busy(admission, clock, 8)
    admission.release(10, 0)
    clock.now += 1000
    admission.reserve(0.001)  # the only image is always accepted
    with pytest.raises(Overloaded):
        admission.reserve(1.2)  # two at two a second, and the margin
    admission.reserve(1.3)


def test_the_only_image_is_accepted_at_any_size() -> None:
    admission = Admission(10, 1000)
    admission.reserve_pixels(5000)
    with pytest.raises(Overloaded) as caught:
        admission.reserve_pixels(1)
    assert caught.value.reason == "pixels_full"
    admission.release(0, 5000)
    admission.reserve_pixels(600)
    admission.reserve_pixels(400)
    with pytest.raises(Overloaded):
        admission.reserve_pixels(1)
