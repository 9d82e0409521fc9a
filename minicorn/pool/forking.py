"""Where workers come from: the arbiter's own fork, or a template's.

A template is a process that has imported what its workers share. It is supervised like a worker,
built when it is wanted, ended when it has outlived its use, and told to fork by an order, which
takes a moment: whoever is ordered has its slot already.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from enum import Enum

from minicorn.pool.actions import Agenda, Retire, Spawn
from minicorn.pool.backoff import put_off
from minicorn.pool.life import QUIT_GRACE, Cause, State, Worker
from minicorn.pool.rolls import Rolls
from minicorn.record import Record, fresh

# Seconds after an order at which a template that has not forked the worker is stuck
ORDER_PATIENCE = 10.0
# Templates' slots begin here, so that workers' are 1, 2, 3, ...
TEMPLATE_SLOT = 2001


class ForkSource(Enum):
    """Where workers come from."""

    ARBITER = "the arbiter forks them"
    TEMPLATE = "each generation has a template, which has imported the application; its boot is the canary's"
    COMMON = "one template for all generations, without the application; the arbiter, while there is none"


class Forking(Record):
    """The templates of one server, and the forks under way."""

    agenda: Agenda
    rolls: Rolls
    fork_source: ForkSource = ForkSource.ARBITER
    templates: dict[int, Worker] = fresh(dict)
    orders: dict[Spawn, float] = fresh(dict)  # forks under way, and since when
    _due: float = 0.0
    _strikes: int = 0
    _renewing: bool = False

    def hurry(self) -> None:
        """Try at once again, however many templates have died young."""
        self._due, self._strikes = 0.0, 0

    def renew(self) -> None:
        """Replace the common template, since what it has imported is out of date."""
        self.hurry()
        self._renewing = True

    def failed(self, strikes: int, now: float) -> None:
        """Put the next try off, as a template has died, or could not be forked."""
        self._due, self._strikes = put_off("templates", strikes, now, self.agenda), strikes

    def order(self, spawn: Spawn, now: float) -> None:
        """Have a template fork a worker, and note since when that is awaited."""
        self.orders[spawn] = now
        self.agenda.do(spawn)

    def overslept(self, missed: float) -> None:
        """Grant all orders the time that the arbiter has missed."""
        self.orders = {order: since + missed for order, since in self.orders.items()}

    def judge(self, now: float) -> None:
        """Kill a template that has not carried out its orders in time: it promises nothing by itself."""
        for order, since in self.orders.items():
            template = self.templates.get(order.parent)
            if template is None or template.state is State.KILLED:
                continue
            if now >= since + ORDER_PATIENCE:
                stuck = f"no worker came of it for {ORDER_PATIENCE:g} s"
                self.agenda.do(template.kill(stuck, Cause.TIMEOUT, now))
            else:
                self.agenda.wake(since + ORDER_PATIENCE)

    def free_slot(self, workers: Iterable[Worker], first: int = 1) -> int:
        """The lowest slot from `first` on that nobody has, or is about to have."""
        taken = {each.slot for each in (*workers, *self.templates.values())} | {order.slot for order in self.orders}
        return next(slot for slot in itertools.count(first) if slot not in taken)

    def find_parent(self) -> tuple[int, int | None]:
        """The generation of a worker that is forked now, and the pid of whoever forks it: a template's, 0 for the
        arbiter, or None while nobody can."""
        generation = self.rolls.wanted
        if self.fork_source is ForkSource.ARBITER:
            return generation, 0  # it imports the new code, whatever it replaces
        ready = [t for t in self.templates.values() if t.state is State.READY]
        if self.fork_source is ForkSource.COMMON:
            return generation, ready[0].pid if ready else 0
        by_generation = {template.generation: template.pid for template in ready}
        if generation not in by_generation:
            generation = self.rolls.generation  # whoever dies while the new template boots is replaced by the old one
        return generation, by_generation.get(generation)

    def close(self, now: float) -> None:
        """End all templates."""
        self._dismiss(self.templates.values(), now)

    def plan(self, workers: Collection[Worker], now: float) -> None:
        """Build a template that is wanted, and end those that have outlived their use."""
        ends = [t for t in self.templates.values() if self._renewing or self._is_past_use(t, workers)]
        self._dismiss(ends, now)
        self._renewing = False
        if self.fork_source is not ForkSource.ARBITER and not self._is_provided():
            if now < self._due:
                self.agenda.wake(self._due)
            else:
                slot = self.free_slot(workers, TEMPLATE_SLOT)
                self.order(Spawn(slot, self.rolls.wanted, self._strikes, template=True), now)

    def _dismiss(self, templates: Iterable[Worker], now: float) -> None:
        for template in [template for template in templates if template.is_active]:
            template.dismiss(QUIT_GRACE, now)
            self.agenda.do(Retire(template.pid))

    def _is_provided(self) -> bool:
        """Whether the template that is wanted is there, or on its way."""
        # The end of one that is being killed is waited for: it is a failed boot, and may end the roll
        standing = [t.generation for t in self.templates.values() if not t.dismissed]
        coming = [order.generation for order in self.orders if order.template]
        if self.fork_source is ForkSource.TEMPLATE:
            return self.rolls.wanted in (*standing, *coming)
        return bool(standing or coming)

    def _is_past_use(self, template: Worker, workers: Collection[Worker]) -> bool:
        """Whether the template's generation has been given up, or the last worker of it has gone."""
        if self.fork_source is ForkSource.COMMON:
            return False
        if template.generation >= self.rolls.generation:
            return template.generation > self.rolls.wanted
        return all(worker.generation > template.generation for worker in workers)
