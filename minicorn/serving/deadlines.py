"""Deadlines of many things at little cost: filed by the tick in which they fall.

A thing's deadline moves with every request, nearly always later. So it is filed once, under
its tick, and looked at when that tick is over: if it is later by then, it is filed again.
A request costs a comparison; a wake-up costs what is due, however many connections wait.
Rejected: a heap (log n a request), a queue for each state (an entry a request).
"""

from __future__ import annotations

import math

from minicorn.typed import Generic, Protocol, TypeVar

TICK = 1.0  # seconds: how late a deadline may be noticed, and how often an idle process wakes
UNFILED = math.inf  # so that any deadline is earlier


class Bounded(Protocol):
    """Something with a deadline, in monotonic seconds; `filed` belongs to `Deadlines`, and is UNFILED at first."""

    deadline: float
    filed: float  # the beginning of its tick


B = TypeVar("B", bound=Bounded)


class Deadlines(Generic[B]):
    """The things that have a deadline, filed by the tick in which it falls."""

    def __init__(self) -> None:
        self._ticks: dict[float, dict[B, None]] = {}  # by their beginnings

    def note(self, thing: B) -> None:
        """File `thing`, whose deadline is new or has moved."""
        if thing.deadline <= thing.filed:
            self.forget(thing)
            thing.filed = (math.ceil(thing.deadline / TICK) - 1) * TICK
            self._ticks.setdefault(thing.filed, {})[thing] = None

    def forget(self, thing: B) -> None:
        """Take `thing`, which has ended, out of the files."""
        things = self._ticks.get(thing.filed)
        if things is not None:
            things.pop(thing, None)
        thing.filed = UNFILED

    def due(self, now: float) -> list[B]:
        """The things whose deadline has passed; they are no longer filed."""
        over: list[B] = []
        for tick in sorted(tick for tick in self._ticks if tick + TICK <= now):
            for thing in self._ticks.pop(tick):
                thing.filed = UNFILED
                if thing.deadline <= now:
                    over.append(thing)
                else:
                    self.note(thing)
        return over
