"""Signals of this very process: recorded, taken once, most urgent first; and none is slept through."""

import os
import select
import signal
from collections.abc import Iterator
from signal import SIGHUP, SIGTERM, SIGUSR1, SIGWINCH

import pytest

from minicorn.system.signals import Signals


@pytest.fixture
def taken() -> Iterator[Signals]:
    taken = Signals([SIGUSR1, SIGHUP, SIGWINCH, SIGTERM])
    taken.install()
    yield taken
    taken.restore()


def is_awake(taken: Signals) -> bool:
    return bool(select.select([taken.fd], [], [], 0)[0])


def test_what_came_is_taken_once_and_the_most_urgent_first(taken: Signals) -> None:
    for signum in (SIGUSR1, SIGHUP, SIGHUP, SIGTERM, SIGWINCH, SIGHUP):
        os.kill(os.getpid(), signum)
    assert is_awake(taken)
    assert taken.take() == [SIGTERM, SIGWINCH, SIGHUP, SIGUSR1]
    assert not is_awake(taken)
    assert taken.take() == []


def test_what_comes_as_they_are_taken_is_taken_or_wakes_again(taken: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe is drained first: a wake-up that was drained after the look would be slept through."""
    drain = taken._wakeup.drain

    def drain_as_one_comes() -> None:
        os.kill(os.getpid(), SIGHUP)
        drain()

    monkeypatch.setattr(taken._wakeup, "drain", drain_as_one_comes)
    assert SIGHUP in taken.take() or is_awake(taken)


def test_they_are_given_back_as_they_were() -> None:
    before = [signal.getsignal(signum) for signum in (SIGUSR1, SIGHUP)]
    taken = Signals([SIGUSR1, SIGHUP])
    taken.install()
    taken.restore()
    assert [signal.getsignal(signum) for signum in (SIGUSR1, SIGHUP)] == before
