"""Rolls: from the wish for new code to a generation that serves.

A roll is a number, the wanted generation, and generations only grow. At most one runs, and at most
one more waits, so HUPs without end still complete rolls. The first worker of a generation is its
canary: when it cannot boot the roll is off, and the old code serves on.

With `development` (--reload) somebody edits and looks: new code that fails shows so itself, and a newer
wish overrules a roll under way.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from minicorn.pool.actions import Agenda, Level
from minicorn.pool.life import Worker
from minicorn.record import Record, Value

# Most retries of boots that find an address in use: what the old code has started may hold it for a while, or others
TRIES = 3


class Roll(Record):
    """A rolling restart under way, to `generation`."""

    generation: int
    began: float
    wish: int  # how many wishes for new code had been heard: it answers them all
    canary_ready: bool = False
    has_failures: bool = False  # a worker of it failed to boot
    retries: int = 0  # of workers of it that found an address in use
    promoted: bool = False  # to the code that serves already, from a warm template: it answers no wish


class Ending(StrEnum):
    """How a rolling restart has ended."""

    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"  # by a newer one
    STOPPED = "stopped"  # as all was


class Rolled(Value):
    """A rolling restart that has ended."""

    generation: int
    wish: int  # as in Roll
    outcome: Ending


class Rolls(Record):
    """The generations of one server, and the way from one to the next."""

    agenda: Agenda
    development: bool = False
    alone: bool = False  # with `development`: new code cannot be loaded beside the old, whose addresses it binds
    generation: int = 1  # of the code that serves
    newest: int = 1  # the highest ever given out
    current: Roll | None = None
    wished: bool = False  # one more waits
    wishes: int = 0  # for new code, that were heard
    last: Rolled | None = None
    failure: str = ""  # which roll was the last, where it failed

    @property
    def wanted(self) -> int:
        """The generation to be reached: that of the roll under way, else the one that serves."""
        return self.current.generation if self.current else self.generation

    @property
    def quiet_level(self) -> Level:
        """The level of what goes without saying to somebody who edits and looks."""
        return Level.DEBUG if self.development and self.newest > 1 else Level.INFO

    def wish(self) -> None:
        """Want new code: a roll to it begins as soon as none runs."""
        self.wished = True
        self.wishes += 1

    def ready(self, generation: int) -> None:
        """A worker of `generation` serves."""
        if self.current and generation == self.current.generation:
            self.current.canary_ready = True
            self.generation = generation

    def note_failure(self, worker: Worker) -> bool:
        """Note that a worker could not load its code; whether the roll under way goes to that code."""
        if self.current is None or worker.generation != self.current.generation:
            return False
        self.current.has_failures = True
        return True

    def retry_alone(self, worker: Worker) -> bool:
        """Have the old code go first from now on, and `worker`, which found an address in use that the old code may
        have bound, tried again; whether that is worth a try."""
        roll = self.current
        if not self.development or roll is None or worker.generation != roll.generation or roll.retries == TRIES:
            return False
        roll.retries += 1
        self.alone = True
        return True

    def boot_failed(self, worker: Worker) -> None:
        """Note that a worker has ended before it served: a roll is off when that is its canary."""
        if self.note_failure(worker) and self.current and not self.current.canary_ready:
            who, what = "template" if worker.template else "first worker", f"roll to generation {worker.generation}"
            stays = f"generation {self.generation} serves on"
            self.agenda.say(Level.ERROR, f"{what} is off: its {who} failed to boot; {stays}")
            self.failure = f"the {what} failed"
            self.end(Ending.FAILED)

    def turn(self, workers: Collection[Worker], size: int, booted: bool, since: float, now: float) -> bool:
        """End a roll that is complete, begin one that waits; whether one has begun. Its time counts from `since` on,
        when the first client began to wait for it, if any has."""
        roll = self.current
        if roll is not None:
            if (roll.has_failures or roll.promoted or self.development) and self.wished:
                newer = f"roll to generation {roll.generation} is given up for a newer one"
                self.agenda.say(
                    Level.WARNING if roll.has_failures and not self.development else self.quiet_level, newer
                )
                self.end(Ending.SUPERSEDED)
            elif self._is_complete(roll, workers, size):
                self._tell_done(roll, size, now - roll.began)
                self.end(Ending.DONE)
        if self.current is not None or not self.wished or not (booted or self.development):
            return False
        self.wished = False
        self._begin(min(now, since))
        self.failure = ""
        self.agenda.say(self.quiet_level, f"rolling to generation {self.newest}")
        return True

    def _begin(self, began: float, promoted: bool = False) -> None:
        self.newest += 1
        self.current = Roll(self.newest, began, self.wishes, promoted=promoted)

    def promote(self, now: float) -> int:
        """Begin a roll to the code that serves already; its generation."""
        self._begin(now, promoted=True)
        return self.newest

    def withdraw(self, generation: int) -> bool:
        """Undo the begin of a promoted roll, which has no template to begin with; False if it is over already."""
        if self.current is None or self.current.generation != generation:
            return False
        self.newest -= 1
        self.current = None
        return True

    def end(self, outcome: Ending) -> None:
        """End the roll under way, if there is one."""
        if self.current is not None and not self.current.promoted:
            self.last = Rolled(self.current.generation, self.current.wish, outcome)
        self.current = None

    def _is_complete(self, roll: Roll, workers: Collection[Worker], size: int) -> bool:
        new = [worker for worker in workers if worker.generation == roll.generation]
        ready = sum(worker.serves for worker in new)
        # With --reload somebody waits to read that it is done, whatever old workers have still to finish
        return ready >= size and (self.development or len(new) == len(workers))

    def _tell_done(self, roll: Roll, size: int, took: float) -> None:
        if self.development and roll.has_failures:
            self.agenda.say(Level.WARNING, "The error is shown to whoever asks, until the code is mended")
        elif self.development:
            self.agenda.say(Level.INFO, f"Reloaded in {took:.2f} s (generation {roll.generation})")
        else:
            workers = f"{size} workers replaced in {took:.1f} s"
            self.agenda.say(Level.INFO, f"generation {roll.generation} serves: {workers}")
