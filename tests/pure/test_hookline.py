"""The arbiter's calls of hooks while nobody can run them: they are bounded in number and in time, and said."""

import logging
import math

import pytest

from minicorn.arbiter.hookline import WAITING_MOST, HookLine
from minicorn.config.settings import Settings
from minicorn.system import channel

SETTINGS = Settings(hooks=("child_exit", "on_reload"), config_timeout=10.0)


@pytest.fixture(autouse=True)
def _heard(monkeypatch):
    """caplog listens at the root."""
    monkeypatch.setattr(logging.getLogger("minicorn"), "propagate", True)


def test_calls_wait_for_a_hooks_process_but_not_for_ever(caplog):
    line, answers = HookLine(SETTINGS, []), []
    line.call("on_reload", then=answers.append)
    line.call("child_exit", 7, 1, then=answers.append)
    line.step(100.0)
    line.step(109.9)
    assert line.wake_at == 110.0
    assert answers == []
    line.step(110.0)
    assert answers == [False, False]
    assert caplog.messages == ["there is no hooks process for 10 s; not run: on_reload (1), child_exit (1)"]
    line.step(110.0)
    assert line.wake_at == math.inf


def test_no_more_than_so_many_wait_and_those_too_many_are_counted(caplog):
    line, answers = HookLine(SETTINGS, []), []
    for pid in range(WAITING_MOST + 30):
        line.call("child_exit", pid, 1, then=answers.append)
    assert answers == [False] * 30
    line.step(0.0)
    line.step(10.0)
    assert answers == [False] * (WAITING_MOST + 30)
    assert caplog.messages == [f"there is no hooks process for 10 s; not run: child_exit ({WAITING_MOST + 30})"]


def test_those_too_many_are_said_though_all_others_have_run(caplog):
    line, answers = HookLine(SETTINGS, []), []
    for pid in range(WAITING_MOST + 2):
        line.call("child_exit", pid, 1, then=answers.append)
    ours, theirs = channel.pair()
    line.auxiliary.spawned(42, ours, 0.0)
    for number in range(1, WAITING_MOST + 1):
        line.auxiliary.hear(channel.Message(channel.RAN, [number, True]))
    line.step(0.0)
    assert answers == [False] * 2 + [True] * WAITING_MOST
    assert caplog.messages == ["too many calls have waited; not run: child_exit (2)"]
    for end in (ours, theirs):
        end.close()


def test_of_what_a_child_was_told_as_it_died_the_first_is_lost_and_the_rest_the_next_ones(caplog):
    line, answers = HookLine(SETTINGS, []), []
    for pid in (7, 8, 9):
        line.call("child_exit", pid, 1, then=answers.append)
    for child in (42, 43):
        ours, theirs = channel.pair()
        line.auxiliary.spawned(child, ours, 0.0)
        line.step(0.0)
        told = [message.value[1] for message in theirs.receive()[0]]
        assert told == ([7, 8, 9] if child == 42 else [8, 9])
        line.auxiliary.failed(0.0)
        for end in (ours, theirs):
            end.close()
        if child == 42:
            line.step(0.0)
    assert answers == [False]
    assert caplog.messages == ["the hooks process has died; not run: child_exit (1)"]


def test_a_hooks_process_is_wanted_where_the_arbiter_has_hooks():
    assert HookLine(SETTINGS, []).auxiliary.due == 0.0
    assert HookLine(Settings(hooks=("post_fork",)), []).auxiliary.due == math.inf


def test_a_hook_that_there_is_not_has_gone_well():
    answers = []
    HookLine(SETTINGS, []).call("on_exit", then=answers.append)
    assert answers == [True]


def test_whoever_asks_when_it_is_due_sends_nothing_and_a_new_child_is_told_at_once():
    line = HookLine(SETTINGS, [])
    line.call("child_exit", 7, 1)
    line.step(0.0)
    ours, theirs = channel.pair()
    line.auxiliary.spawned(42, ours, 1.0)
    assert line.wake_at <= 1.0
    assert theirs.receive() == ([], True)
    line.step(1.0)
    assert theirs.receive()[0] == [channel.Message("child_exit", [1, 7, 1])]
    assert line.wake_at == 10.0
    line.step(2.0)
    assert theirs.receive() == ([], True)
    for end in (ours, theirs):
        end.close()
