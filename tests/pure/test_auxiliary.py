"""Auxiliaries: when they are due, and who is who. Real channels, no process."""

import math

import pytest

from minicorn.arbiter.auxiliary import Auxiliaries, Auxiliary
from minicorn.pool.backoff import BACKOFF_FIRST, BACKOFF_MOST, HEALTHY
from minicorn.system import channel


@pytest.fixture
def auxiliary():
    return Auxiliary("watcher", run=lambda line: 0, hear=lambda message: None)


def test_an_auxiliary_is_due_at_once_and_not_while_it_lives(auxiliary):
    both = Auxiliaries([auxiliary])
    assert both.due(0.0) == [auxiliary]
    ours, theirs = channel.pair()
    auxiliary.spawned(7, ours, 0.0)
    assert both.due(1e9) == []
    assert both.wake_at == math.inf
    assert both.by_pid(7) is auxiliary and both.by_pid(8) is None
    assert list(both.channels) == [(auxiliary, ours)]
    ours.close()
    theirs.close()


def test_an_auxiliary_that_dies_young_comes_back_ever_more_slowly(auxiliary):
    both = Auxiliaries([auxiliary])
    delays = [auxiliary.failed(100.0) for _ in range(10)]
    assert delays[:3] == [0.0, BACKOFF_FIRST, 2 * BACKOFF_FIRST]
    assert max(delays) == BACKOFF_MOST
    assert both.due(100.0 + BACKOFF_MOST - 0.1) == [] and both.wake_at == 100.0 + BACKOFF_MOST
    assert both.by_pid(0) is None


def test_of_several_the_next_that_is_due_wakes_and_each_is_known_by_its_pid(auxiliary):
    other = Auxiliary("monitor", run=lambda line: 0, hear=lambda message: None, due=5.0)
    both = Auxiliaries([auxiliary, other])
    ours, theirs = channel.pair()
    auxiliary.spawned(7, ours, 0.0)
    assert (both.wake_at, both.due(5.0)) == (5.0, [other])
    other.pid = 8
    assert both.by_pid(8) is other
    auxiliary.dismiss()
    assert auxiliary.dismissed
    auxiliary.failed(1.0)
    assert both.by_pid(7) is None and list(both.channels) == []
    auxiliary.spawned(9, ours, 2.0)
    assert not auxiliary.dismissed
    ours.close()
    theirs.close()


def test_an_auxiliary_that_was_healthy_comes_back_at_once(auxiliary):
    for _ in range(5):
        auxiliary.failed(0.0)
    ours, theirs = channel.pair()
    auxiliary.spawned(7, ours, 1.0)
    assert auxiliary.failed(1.0 + HEALTHY) == 0.0
    ours.close()
    theirs.close()


def test_what_it_is_told_arrives_and_the_end_is_seen_on_both_sides(auxiliary):
    assert not auxiliary.tell("nobody hears")
    ours, theirs = channel.pair()
    auxiliary.spawned(7, ours, 0.0)
    assert auxiliary.tell("reload", "why")
    ours.finish()
    assert theirs.receive() == ([channel.Message("reload", "why")], False)
    theirs.send("bye")
    theirs.close()
    assert ours.receive() == ([channel.Message("bye")], False)
    ours.close()
