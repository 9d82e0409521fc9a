"""Slow requests: asked about once each, told when the answer is whole, forgotten when they end."""

import pytest

from minicorn.pool.slow import ANSWER, GLANCE, SHORTEST, SlowRequests


def test_a_request_is_asked_about_when_it_has_taken_so_long_and_told_once() -> None:
    slow = SlowRequests(limit=5.0)
    assert slow.plan(104.9, {7: 100.0}, {}) == ([], [])
    assert slow.wake_at == 105.0
    assert slow.plan(105.0, {7: 100.0}, {}) == ([7], [])
    assert (slow.asked, slow.wake_at) == ([7], 105.0 + GLANCE)
    assert slow.plan(105.1, {7: 100.0}, {7: 900}) == ([], [])
    assert slow.plan(105.2, {7: 100.0}, {7: 900}) == ([], [7])
    assert (slow.asked, slow.wake_at) == ([], 110.2)
    assert slow.plan(999.0, {7: 100.0}, {}) == ([], [])


def test_an_answer_is_read_when_it_has_not_grown_for_a_glance() -> None:
    slow = SlowRequests(limit=5.0)
    slow.plan(105.0, {7: 100.0}, {})
    for at, size in ((105.05, 0), (105.1, 0), (105.15, 300), (105.2, 900)):
        assert slow.plan(at, {7: 100.0}, {7: size}) == ([], [])
        assert slow.wake_at == at + GLANCE
    assert slow.plan(105.21, {7: 100.0}, {7: 900}) == ([], [])  # somebody else has woken us
    assert slow.plan(105.25, {7: 100.0}, {7: 900}) == ([], [7])


def test_a_worker_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    slow = SlowRequests(limit=5.0)
    slow.plan(105.0, {7: 100.0}, {})
    assert slow.plan(104.9 + ANSWER, {7: 100.0}, {7: 0}) == ([], [])
    assert slow.plan(105.0 + ANSWER, {7: 100.0}, {7: 0}) == ([], [7])


def test_the_next_request_of_the_same_worker_is_another() -> None:
    slow = SlowRequests(limit=5.0)
    slow.plan(105.0, {7: 100.0}, {})
    slow.plan(106.0, {7: 100.0}, {7: 900})
    slow.plan(106.1, {7: 100.0}, {7: 900})
    assert slow.plan(107.0, {7: 106.5}, {}) == ([], [])
    assert slow.plan(111.5, {7: 106.5}, {}) == ([7], [])


def test_an_answer_of_a_request_that_has_ended_is_not_read() -> None:
    slow = SlowRequests(limit=5.0)
    assert slow.plan(105.0, {7: 100.0}, {}) == ([7], [])
    assert slow.plan(105.3, {}, {7: 900}) == ([], [])
    assert slow.plan(105.4, {7: 105.35}, {}) == ([], [])
    assert slow.wake_at == 110.35


def test_workers_are_told_apart() -> None:
    slow = SlowRequests(limit=1.0)
    busy = {1: 100.0, 2: 101.0, 3: 100.2}
    assert slow.plan(101.5, busy, {}) == ([1, 3], [])
    assert slow.plan(101.6, busy, {1: 900, 3: 0}) == ([], [])
    assert slow.plan(102.0, busy, {1: 900, 3: 900}) == ([2], [1])


@pytest.mark.parametrize(("limit", "apart"), [(30.0, 30.0), (0.3, 0.3), (0.001, SHORTEST)])
def test_while_nobody_is_busy_looks_are_as_far_apart_as_the_limit(limit: float, apart: float) -> None:
    slow = SlowRequests(limit)
    assert slow.plan(100.0, {}, {}) == ([], [])
    assert slow.wake_at == 100.0 + apart
