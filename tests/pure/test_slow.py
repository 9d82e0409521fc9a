"""Slow requests: asked about once each, told when the answer is due, forgotten when they end."""

import math

from minicorn.slow import ANSWER, SlowRequests


def test_a_request_is_asked_about_when_it_has_taken_so_long_and_told_a_moment_later_once() -> None:
    slow = SlowRequests(limit=5.0)
    assert slow.plan(104.9, {7: 100.0}) == ([], [])
    assert slow.wake_at == 105.0
    assert slow.plan(105.0, {7: 100.0}) == ([7], [])
    assert slow.wake_at == 105.0 + ANSWER
    assert slow.plan(105.0 + ANSWER, {7: 100.0}) == ([], [7])
    assert slow.wake_at == math.inf
    assert slow.plan(999.0, {7: 100.0}) == ([], [])


def test_the_next_request_of_the_same_worker_is_another() -> None:
    slow = SlowRequests(limit=5.0)
    slow.plan(105.0, {7: 100.0})
    slow.plan(106.0, {7: 100.0})
    assert slow.plan(107.0, {7: 106.5}) == ([], [])
    assert slow.plan(111.5, {7: 106.5}) == ([7], [])


def test_an_answer_of_a_request_that_has_ended_is_not_read() -> None:
    slow = SlowRequests(limit=5.0)
    assert slow.plan(105.0, {7: 100.0}) == ([7], [])
    assert slow.plan(105.3, {}) == ([], [])
    assert slow.plan(105.4, {7: 105.35}) == ([], [])
    assert slow.wake_at == 110.35


def test_workers_are_told_apart() -> None:
    slow = SlowRequests(limit=1.0)
    assert slow.plan(101.5, {1: 100.0, 2: 101.0, 3: 100.2}) == ([1, 3], [])
    assert slow.wake_at == 101.5 + ANSWER
    assert slow.plan(102.0, {1: 100.0, 2: 101.0, 3: 100.2}) == ([2], [1, 3])


def test_nobody_busy_means_no_wake_up() -> None:
    slow = SlowRequests(limit=1.0)
    assert slow.plan(100.0, {}) == ([], [])
    assert slow.wake_at == math.inf
