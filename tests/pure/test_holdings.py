"""Who holds how much, and who goes first."""

from minicorn.serving.holdings import Holdings


def test_the_total_is_what_all_hold_now() -> None:
    holdings: Holdings[str] = Holdings()
    holdings.note("a", 10)
    holdings.note("b", 5)
    holdings.note("a", 3)
    assert holdings.total == 8
    holdings.note("b", 0)
    assert holdings.total == 3
    holdings.forget("a")
    holdings.forget("a")
    assert holdings.total == 0


def test_the_slowest_is_who_has_not_moved_for_longest() -> None:
    holdings: Holdings[str] = Holdings()
    for name in "abc":
        holdings.note(name, 1)
    holdings.note("a", 2)
    assert holdings.slowest() == "b"
    holdings.forget("b")
    holdings.note("c", 0)
    assert holdings.slowest() == "a"
