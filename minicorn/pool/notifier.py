"""What a service manager is told of the server, and when: sd_notify(3), as values.

The server's phase is read off the pool; entering one is told at once, the status only when it
has changed and not too often, since each is a message on the system bus. Pure: the clock comes in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

from minicorn.pool.pool import Pool
from minicorn.pool.standing import Stage, stage_of

# Seconds between two status texts of one phase
STATUS_EVERY = 5.0
# Seconds: how often the manager is asked for more time while the server boots, rolls or drains, and for how much.
# The arbiter has deadlines of its own for all three; the manager's is for an arbiter that hangs
EXTEND_EVERY, EXTEND_BY = 5.0, 30.0


class Phase(Enum):
    """Where the server is; the value is what entering it is called."""

    BOOTING = ""
    SERVING = "READY=1"
    RELOADING = "RELOADING=1"
    STOPPING = "STOPPING=1"


def read_phase(pool: Pool) -> Phase:
    """The phase that the pool is in."""
    roll = pool.rolls.current
    serving = Phase.RELOADING if pool.rolls.wished or (roll and not roll.promoted) else Phase.SERVING
    return {Stage.DRAINING: Phase.STOPPING, Stage.BOOTING: Phase.BOOTING}.get(stage_of(pool), serving)


def describe(pool: Pool, busy: int, rate: float, reason: str) -> str:
    """One line for an operator; `rate` is requests a second, `reason` why a worker last failed to boot."""
    serving = sum(worker.serves for worker in pool.workers.values())
    if pool.failed:
        return f"the application could not be loaded: {reason}"
    if pool.stopping is not None:
        return f"stopping: {len(pool.workers)} workers are finishing"
    if not pool.booted:
        return f"booting {pool.size} workers"
    rolls = pool.rolls
    text = f"{serving} of {pool.size} workers serve generation {rolls.generation}, {busy} busy, {rate:.1f} requests/s"
    if rolls.current is not None:
        return f"rolling to generation {rolls.current.generation}; {text}"
    return f"{rolls.failure}: {reason}; {text}" if rolls.failure else text


class Notifier:
    """Knows what has been told already, and what is due."""

    def __init__(self, watchdog: float) -> None:
        """`watchdog`: seconds of silence after which the manager thinks us dead; 0: it does not watch."""
        self._beat_every = watchdog / 2
        self._beat_at = -math.inf if watchdog else math.inf
        self._phase = Phase.BOOTING
        self._text = ""
        self._text_at = self._extend_at = -math.inf

    def turn(self, now: float, phase: Phase, describe: Callable[[], str]) -> list[str]:
        """The assignments to send now; `describe` is asked only when a status is due."""
        lines: list[str] = []
        entered = phase is not self._phase
        if entered:
            self._phase = phase
            lines.append(phase.value)
            if phase is Phase.RELOADING:
                lines.append(f"MONOTONIC_USEC={int(now * 1e6)}")
        if entered or now >= self._text_at:
            lines += self._tell_status(now, describe())
        if phase is not Phase.SERVING and (entered or now >= self._extend_at):
            lines.append(f"EXTEND_TIMEOUT_USEC={int(EXTEND_BY * 1e6)}")
            self._extend_at = now + EXTEND_EVERY
        if now >= self._beat_at:
            lines.append("WATCHDOG=1")
            self._beat_at = now + self._beat_every
        return lines

    def _tell_status(self, now: float, text: str) -> list[str]:
        self._text_at = now + STATUS_EVERY
        if text == self._text:
            return []
        self._text = text
        return [f"STATUS={' '.join(text.split())}"]  # a line feed would begin another assignment

    @property
    def wake_at(self) -> float:
        """When the next beat is due."""
        return self._beat_at
