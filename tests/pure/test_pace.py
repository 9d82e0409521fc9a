"""How many requests may wait for a worker: by how long the last ones took."""

import pytest

from minicorn.serving.pace import Pace


def after(*took: float) -> int:
    pace = Pace()
    for seconds in took:
        pace.note(seconds)
    return pace.share


def test_a_new_worker_keeps_one() -> None:
    assert after() == after(0.00001) == 1


@pytest.mark.parametrize("took", [0.001, 0.003, 0.5])
def test_where_requests_take_long_one_may_wait(took: float) -> None:
    assert after(*[took] * 500) == 1


def test_where_requests_are_quick_many_may_wait_and_fewer_the_longer_they_take() -> None:
    shares = [after(*[took] * 500) for took in (0.000005, 0.00005, 0.0002, 0.0005)]
    assert shares == sorted(set(shares), reverse=True)
    assert shares[0] <= 20
    assert shares[-1] == 1


def test_one_that_takes_long_is_remembered_for_a_while() -> None:
    quick = [0.00001] * 500
    assert after(*quick, 0.5) == after(*quick, 0.5, *quick[:150]) == 1
    assert after(*quick, 0.5, *quick) == after(*quick)
