"""How many clients to accept at once: what there was of late, seldom one more."""

from minicorn.serving.batchsize import MOST, REST, BatchSize


def looks(crowd: BatchSize, waiting: int, turns: int) -> list[tuple[int, int]]:
    """What is wanted, and what comes, in so many turns with so many waiting in each."""
    seen = []
    for _ in range(turns):
        wanted = crowd.guess
        came = min(wanted, waiting)
        crowd.note(came, wanted)
        seen.append((wanted, came))
    return seen


def test_a_crowd_is_taken_in_fewer_and_fewer_turns() -> None:
    assert [wanted for wanted, _ in looks(BatchSize(), 100, 7)] == [1, 2, 4, 8, MOST, MOST, MOST]


def test_a_client_alone_is_looked_for_in_vain_once_in_a_while() -> None:
    seen = looks(BatchSize(), 1, 10 * (REST + 2))
    assert 9 <= sum(wanted > came for wanted, came in seen) <= 10
    assert max(wanted for wanted, _ in seen) == 2


def test_after_a_crowd_as_many_are_wanted_as_were_there() -> None:
    crowd = BatchSize()
    looks(crowd, 100, 10)
    assert looks(crowd, 3, 3) == [(MOST, 3), (3, 3), (3, 3)]
    looks(crowd, 0, 1)
    assert crowd.guess == 1


def test_who_may_not_want_more_learns_nothing_of_more() -> None:
    crowd = BatchSize()
    looks(crowd, 100, 3)
    for _ in range(10):
        crowd.note(1, 1)
    assert crowd.guess == 8
