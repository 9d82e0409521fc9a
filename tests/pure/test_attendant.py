"""Attendants: when they are due, and who is who. Real channels, no process."""

import math

import pytest

from minicorn.arbiter.attendant import Attendant, Attendants
from minicorn.pool.backoff import BACKOFF_FIRST, BACKOFF_MOST, HEALTHY
from minicorn.system import channel


@pytest.fixture
def attendant():
    return Attendant("watcher", run=lambda line: 0, hear=lambda message: None)


def test_an_attendant_is_due_at_once_and_not_while_it_lives(attendant):
    both = Attendants([attendant])
    assert both.due(0.0) == [attendant]
    ours, theirs = channel.pair()
    attendant.spawned(7, ours, 0.0)
    assert both.due(1e9) == []
    assert both.wake_at == math.inf
    assert both.by_pid(7) is attendant and both.by_pid(8) is None
    assert list(both.channels) == [(attendant, ours)]
    ours.close()
    theirs.close()


def test_an_attendant_that_dies_young_comes_back_ever_more_slowly(attendant):
    both = Attendants([attendant])
    delays = [attendant.missed(100.0) for _ in range(10)]
    assert delays[:3] == [0.0, BACKOFF_FIRST, 2 * BACKOFF_FIRST]
    assert max(delays) == BACKOFF_MOST
    assert both.due(100.0 + BACKOFF_MOST - 0.1) == [] and both.wake_at == 100.0 + BACKOFF_MOST
    assert both.by_pid(0) is None


def test_an_attendant_that_was_healthy_comes_back_at_once(attendant):
    for _ in range(5):
        attendant.missed(0.0)
    ours, theirs = channel.pair()
    attendant.spawned(7, ours, 1.0)
    assert attendant.missed(1.0 + HEALTHY) == 0.0
    ours.close()
    theirs.close()


def test_what_it_is_told_arrives_and_the_end_is_seen_on_both_sides(attendant):
    attendant.tell("nobody hears")
    ours, theirs = channel.pair()
    attendant.spawned(7, ours, 0.0)
    attendant.tell("reload", "why")
    ours.finish()
    assert theirs.receive() == ([channel.Message("reload", "why")], False)
    theirs.send("bye")
    theirs.close()
    assert ours.receive() == ([channel.Message("bye")], False)
    ours.close()
