"""Reforks: a warm worker is promoted to template of a new generation.

What an application loads with its first requests lies in each worker's own memory. A worker that has
answered as many requests as `after` says forks a template of its like, and who is forked by that shares all
of it. The code is the same, so it is no reload; but a roll as any other replaces the workers.

A worker that a fork would break refuses: another is asked, or it again after as many requests more.
New code begins with the first number of `after`, each promotion goes on with the next.
"""

from __future__ import annotations

from collections.abc import Collection

from minicorn.pool.actions import Agenda, Level, Spawn
from minicorn.pool.forking import TEMPLATE_SLOT, Forking, ForkSource
from minicorn.pool.life import Worker
from minicorn.pool.rolls import Rolls
from minicorn.record import Record, fresh


class Reforks(Record):
    """The promotions of one server."""

    agenda: Agenda
    rolls: Rolls
    forking: Forking
    after: tuple[int, ...] = ()  # requests of one worker
    _times: dict[int, int] = fresh(dict)  # how many promotions have led to a generation
    _told: int = 0  # of which generation a refusal was last told

    def plan(self, workers: Collection[Worker], size: int, now: float) -> None:
        """Order a template from the warmest worker, if it is warm enough, all serve, and nobody comes or goes."""
        times = self._times.get(self.rolls.generation, 0)
        busy = self.rolls.current or self.forking.orders
        if self.forking.fork_source is not ForkSource.TEMPLATE or times >= len(self.after) or busy:
            return
        serving = [worker for worker in workers if worker.serves]
        if len(serving) < size:
            return
        warmest = max(serving, key=lambda worker: worker.answered - worker.asked)
        if warmest.answered - warmest.asked < self.after[times]:
            return
        warmest.asked = warmest.answered
        generation = self.rolls.promote(now)
        self._times[generation] = times + 1
        slot = self.forking.free_slot(workers, TEMPLATE_SLOT)
        self.forking.order(Spawn(slot, generation, parent=warmest.pid, template=True), now)

    def born(self, order: Spawn, parent: Worker) -> None:
        """Log that a template has been forked from `parent`, to whose generation all roll now."""
        promoted = f"{parent} is promoted after {parent.answered:,} requests"
        self.agenda.say(Level.INFO, f"{promoted}: rolling to generation {order.generation}")

    def refused(self, order: Spawn, parent: Worker | None, reason: str, now: float) -> None:
        """Call a promotion off that has failed; `reason`: what the worker says, or that it has died."""
        if self.rolls.withdraw(order.generation):
            del self._times[order.generation]
        if parent is not None:
            level = Level.DEBUG if self._told == parent.generation else Level.WARNING
            self.agenda.say(level, f"{parent} is not promoted to template: {reason}")
            self._told = parent.generation
        self.agenda.wake(now)  # another may be warm enough

    def forget(self, generation: int) -> None:
        """Begin anew with `generation`, whose template has died: the next imports what was warm."""
        self._times.pop(generation, None)
