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
    """Say something to a worker over its channel; each kind of this says something else."""

    pid: int


class Retire(Tell):
    """Ask a worker to hand over what it can, finish the rest, and end."""


class Seal(Tell):
    """Tell a worker that the server stops: nothing may go into the hand-off queue any more."""


class Drain(Tell):
    """Ask a worker, when all are sealed, to serve what waits in the queues, finish, and end."""


class Hold(Tell):
    """Tell a worker whose code is out of date to answer nothing more, and to keep who asks."""


class Excuse(Tell):
    """Tell a held worker to say to those who wait that the new code takes long."""


class Abort(Value):
    """Send SIGABRT, upon which a worker that is `late` by so many seconds writes its stack, and dies."""

    pid: int
    late: float


class Kill(Value):
    """Send SIGKILL."""

    pid: int
    reason: str


class Quit(Value):
    """Send SIGQUIT: the worker ends without finishing what it has begun."""

    pid: int


class Level(IntEnum):
    """How grave a line for the log is; the numbers are the logging package's."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class Say(Value):
    """Log a line."""

    level: Level
    text: str


Action = Spawn | Tell | Abort | Kill | Quit | Say


class Agenda(Record):
    """A plan in the making, by all parts of the pool: what to do, and when to plan again (monotonic seconds)."""

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
        """Plan again at this time, or before."""
        self.wake_at = min(self.wake_at, at)

    def close(self) -> list[Action]:
        """End the plan and give its actions, the lines for the log first; what is added later is for the next."""
        plan = self._lines + self._actions
        self._lines, self._actions = [], []
        return plan
