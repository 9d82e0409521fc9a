"""Back-off: what dies young is replaced at once, and what dies young again ever more slowly."""

from __future__ import annotations

from minicorn.pool.actions import Agenda, Level
from minicorn.record import Record, Value, fresh

BACKOFF_FIRST, BACKOFF_MOST = 0.25, 10.0
# Seconds after which a worker counts as healthy: its end is a crash then, not a crash loop
HEALTHY = 10.0


def strike(before: int, lived: float) -> int:
    """How many in a row have died young, after so many `before`, when one has that `lived` for so many seconds."""
    return 1 if lived >= HEALTHY else before + 1


def backoff(strikes: int) -> float:
    """Seconds before the next try, when so many in a row have died young: the first is replaced at once."""
    return 0.0 if strikes < 2 else min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** (strikes - 2))


def put_off(whose: str, strikes: int, now: float, agenda: Agenda) -> float:
    """When the next try is due after `strikes` in a row have died young; a delay is logged, as `whose`."""
    delay = backoff(strikes)
    if delay:
        agenda.say(Level.WARNING, f"{whose} die young: {strikes} in a row, the next try in {delay:g} s")
    agenda.wake(now + delay)
    return now + delay


class Vacancy(Value):
    """A place whose worker has died: when its replacement is due, and how many in a row have died young there."""

    due: float
    strikes: int


class Vacancies(Record):
    """The places that wait for a replacement."""

    agenda: Agenda
    _places: list[Vacancy] = fresh(list)

    def add(self, strikes: int, now: float) -> None:
        """Add the place of a worker that has died, or could not be forked."""
        self._places.append(Vacancy(put_off("workers", strikes, now, self.agenda), strikes))

    def take(self, wanted: int, now: float) -> list[int]:
        """The strikes of up to `wanted` workers that may be forked now: vacant places whose time
        has come, and new places; a place that backs off holds its share of the wanted."""
        due = sorted((v for v in self._places if v.due <= now), key=lambda v: v.due)[: max(0, wanted)]
        waiting = [v for v in self._places if v not in due]
        self._places = waiting[: max(0, wanted - len(due))]
        for vacancy in self._places:
            self.agenda.wake(vacancy.due)
        fresh = wanted - len(due) - len(self._places)
        return [v.strikes for v in due] + [0] * fresh

    def clear(self) -> None:
        """Forget what has failed: what is asked for now deserves a try at once."""
        self._places.clear()

    def __len__(self) -> int:
        return len(self._places)
