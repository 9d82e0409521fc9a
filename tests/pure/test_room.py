"""How many connections a process may have, and who goes where others want to come."""

import resource
from types import SimpleNamespace

import pytest

from minicorn.serving import room
from minicorn.serving.room import SLOW_CLIENT, SLOW_SHARE, choose, find_capacity
from minicorn.serving.state import APP, HEAD, IDLE, State


def guest(waited: float = 0.0, state: State = HEAD, lags: bool = False) -> SimpleNamespace:
    return SimpleNamespace(state=state, waited=lambda now: now - 100 + waited, lags=lags)


@pytest.mark.parametrize(
    ("limit", "wished", "capacity"),
    [(1024, 0, 960), (1024, 10, 10), (1024, 5000, 960), (100, 0, 50), (101, 0, 51), (128, 0, 64)],
)
def test_the_application_keeps_descriptors_half_of_them_where_there_are_few(
    monkeypatch: pytest.MonkeyPatch, limit: int, wished: int, capacity: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_NOFILE: (limit, 999999)}.__getitem__)
    assert find_capacity(wished) == capacity


def test_the_oldest_between_two_requests_goes_however_long_others_have_kept_us_waiting() -> None:
    slow, first, second = guest(50.0), guest(state=IDLE), guest(state=IDLE)
    assert choose([slow, first, second], 100.0) == [first]


def test_else_the_slowest_go_one_in_so_many() -> None:
    guests = [guest(SLOW_CLIENT + each) for each in range(SLOW_SHARE)]
    assert choose(guests[1:], 100.0) == [guests[-1]]
    assert choose(guests, 100.0) == [guests[-1], guests[-2]]


def test_nobody_goes_who_has_not_kept_us_waiting_for_long_or_whose_request_is_here() -> None:
    assert choose([guest(SLOW_CLIENT - 0.1), guest(state=APP)], 100.0) == []
    assert choose([guest(50.0, lags=True)], 100.0) == []
    assert choose([], 100.0) == []
    at_the_limit = guest(SLOW_CLIENT)
    assert choose([at_the_limit], 100.0) == [at_the_limit]
    assert room.choose([guest(1.0), at_the_limit], 100.0) == [at_the_limit]
