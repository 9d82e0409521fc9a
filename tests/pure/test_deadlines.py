"""Deadlines under a fake clock: none is missed, none comes early, none comes twice."""

from hypothesis import given, settings
from hypothesis import strategies as st

from minicorn.serving.deadlines import TICK, UNFILED, Deadlines


class Thing:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.filed = UNFILED


def filed(*deadlines: float) -> tuple[Deadlines[Thing], list[Thing]]:
    book: Deadlines[Thing] = Deadlines()
    things = [Thing(deadline) for deadline in deadlines]
    for thing in things:
        book.note(thing)
    return book, things


def test_a_thing_is_due_once_its_tick_is_over() -> None:
    book, [thing] = filed(100.5)
    assert book.due(100.4) == []
    assert book.due(100.5 + TICK) == [thing]
    assert book.due(200) == []


def test_a_deadline_on_a_tick_is_due_at_once() -> None:
    book, [thing] = filed(100.0)
    assert book.due(99.9) == []
    assert book.due(100.0) == [thing]


def test_due_things_come_in_the_order_of_their_ticks() -> None:
    book, things = filed(103, 101, 102)
    assert book.due(110) == [things[1], things[2], things[0]]


def test_a_deadline_moved_later_needs_no_word() -> None:
    book, [thing] = filed(101)
    thing.deadline = 150
    assert book.due(102) == []
    assert book.due(149) == []
    assert book.due(151) == [thing]


def test_a_deadline_moved_earlier_is_heeded() -> None:
    book, [thing] = filed(150)
    thing.deadline = 101
    book.note(thing)
    assert book.due(102) == [thing]
    assert book.due(151) == []


def test_a_deadline_moved_one_tick_earlier_is_heeded() -> None:
    book, [thing] = filed(105.5)
    thing.deadline = 104.5
    book.note(thing)
    assert book.due(105.5) == [thing]


def test_a_thing_is_not_looked_at_before_its_tick_is_over() -> None:
    looks = 0

    class Watched(Thing):
        def __getattribute__(self, name: str) -> object:
            nonlocal looks
            looks += name == "deadline"
            return super().__getattribute__(name)

    book: Deadlines[Thing] = Deadlines()
    for thing in [Watched(150.5) for _ in range(10)]:
        book.note(thing)
    looks = 0
    for now in range(101, 151):
        assert book.due(now + 0.9 * (now < 150)) == []
    assert looks == 0
    assert len(book.due(151)) == 10


def test_a_thing_that_is_forgotten_is_never_due() -> None:
    book, things = filed(101, 101)
    book.forget(things[0])
    assert book.due(200) == [things[1]]


def test_forgetting_what_is_not_filed_changes_nothing() -> None:
    book, [thing] = filed(101)
    book.forget(Thing(101))
    assert book.due(102) == [thing]
    book.forget(thing)
    assert book.due(300) == []


def test_a_thing_that_was_due_can_be_filed_again() -> None:
    book, [thing] = filed(101)
    assert book.due(102) == [thing]
    thing.deadline = 103
    book.note(thing)
    assert book.due(104) == [thing]


def test_a_thing_noted_many_times_is_due_once() -> None:
    book, [thing] = filed(101)
    for deadline in (101, 150, 101, 100.5, 130, 101):
        thing.deadline = deadline
        book.note(thing)
    assert book.due(200) == [thing]


def test_a_long_sleep_misses_nothing() -> None:
    book, things = filed(*(100 + number / 7 for number in range(100)))
    assert set(book.due(10_000)) == set(things)


amounts = st.integers(0, 12).map(lambda halves: halves / 2) | st.floats(0.0, 20.0)
moves = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 2), amounts),
    st.tuples(st.just("later"), st.integers(0, 2), amounts),
    st.tuples(st.just("forget"), st.integers(0, 2), st.just(0.0)),
    st.tuples(st.just("pass"), st.just(0), amounts),
)


@settings(max_examples=150)
@given(st.lists(moves, max_size=40))
def test_whatever_moves_no_deadline_is_missed_early_or_told_twice(steps: list[tuple[str, int, float]]) -> None:
    book: Deadlines[Thing] = Deadlines()
    things = [Thing(0) for _ in range(3)]
    waiting: set[Thing] = set()
    now = 1000.0
    for what, number, amount in [*steps, ("pass", 0, 50.0)]:
        thing = things[number]
        if what == "set":
            thing.deadline = now + amount
            book.note(thing)
            waiting.add(thing)
        elif what == "later" and thing in waiting:
            thing.deadline += amount
        elif what == "forget":
            book.forget(thing)
            waiting.discard(thing)
        elif what == "pass":
            now += amount
            due = book.due(now)
            assert len(set(due)) == len(due)
            assert set(due) <= waiting
            assert all(thing.deadline <= now for thing in due)
            waiting -= set(due)
            assert all(thing.deadline > now - TICK for thing in waiting)
