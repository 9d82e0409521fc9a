"""What the pool wants done, as values: the arbiter performs them in their order."""

from __future__ import annotations

import math
from enum import IntEnum

from minicorn.record import Record, Value, fresh


class Spawn(Value):
    """Fork a worker, or a template; then tell the pool by `spawned` or `spawn_failed`."""

    slot: int
    generation: int
    strikes: int = 0
    parent: int = 0  # the pid of whom to order it from; 0: the arbiter forks
    template: bool = False


class Tell(Value):
    """Say something to a worker over its channel; what, the kind of this tells."""

    pid: int


class Retire(Tell):
    """Ask a worker to hand over what it can, finish the rest, and end."""


class Seal(Tell):
    """Tell a worker that the server stops: nothing may go into the hand-off queue any more."""


class Drain(Tell):
    """All are sealed: ask a worker to serve what waits in the queues, finish, and end."""


class Hold(Tell):
    """Its code is out of date: tell a worker to answer nothing more, and to keep who asks."""


class Excuse(Tell):
    """Tell a held worker to say to those who wait that the new code takes long."""


class Abort(Value):
    """SIGABRT: its stack is wanted."""

    pid: int
    late: float


class Kill(Value):
    """SIGKILL."""

    pid: int
    reason: str


class Quit(Value):
    """SIGQUIT: end without finishing."""

    pid: int


class Level(IntEnum):
    """How grave a line for the log is; the numbers are the logging package's."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class Say(Value):
    """One line for the log."""

    level: Level
    text: str


Action = Spawn | Tell | Abort | Kill | Quit | Say


class Agenda(Record):
    """A plan as it is being made, by all parts of the pool: what to do, and when to plan again."""

    wake_at: float = math.inf
    _lines: list[Action] = fresh(list)
    _actions: list[Action] = fresh(list)

    def do(self, *actions: Action) -> None:
        """Have `actions` performed, in this order."""
        self._actions += actions

    def say(self, level: Level, text: str) -> None:
        """Have a line logged, before anything is done."""
        self._lines.append(Say(level, text))

    def wake(self, at: float) -> None:
        """Plan again then, or before."""
        self.wake_at = min(self.wake_at, at)

    def close(self) -> list[Action]:
        """All of it, the lines for the log first; what comes now is for the next plan."""
        plan = self._lines + self._actions
        self._lines, self._actions = [], []
        return plan
