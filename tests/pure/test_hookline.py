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
    assert [message.word for message in theirs.receive()[0]] == ["child_exit"]
    assert line.wake_at == 10.0
    for end in (ours, theirs):
        end.close()
