"""Those who wait for new code, with --reload: from the first change on, old code answers nothing.

Workers whose code is out of date keep who asks. When the new code takes long they say so, with a
page that refreshes itself; where no worker is there to say it, a placeholder is born: a worker that
imports nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from minicorn.pool.actions import Agenda, Excuse, Hold, Retire, Spawn
from minicorn.pool.forking import Forking
from minicorn.pool.life import PLACEHOLDER, Freshness, Worker
from minicorn.record import Record

# Seconds after a change at which those who wait are told that the new code is being imported
IMPORT_PATIENCE = 5.0


class Waiting(Record):
    """Knows which code is out of date, and since when clients wait for newer code."""

    agenda: Agenda
    forking: Forking
    stale: int = 0  # generations up to this one are out of date
    since: float = math.inf  # nobody is answered

    def begin(self, newest: int, now: float) -> None:
        """Take all code up to generation `newest` for out of date."""
        self.stale = newest
        self.since = min(self.since, now)

    def ready(self, generation: int) -> None:
        """Take note of a worker of `generation` that serves: nobody waits any more, if it is new enough."""
        if generation > self.stale:
            self.since = math.inf

    def placeholder_failed(self, now: float) -> None:
        """Have the next placeholder come as late as the first, which has died, or could not be forked."""
        if self.since < math.inf:
            self.since = now

    def plan(self, workers: Iterable[Worker], booted: bool, now: float) -> None:
        """Let workers that are out of date answer nothing, and after a while say that the new code takes long."""
        if not booted:
            self.since = min(self.since, now)
        excuse_at = self.since + IMPORT_PATIENCE
        for worker in workers:
            if not worker.serves or worker.generation > self.stale:
                continue
            if worker.freshness is Freshness.CURRENT:
                worker.freshness = Freshness.HELD
                self.agenda.do(Hold(worker.pid))
            elif now >= excuse_at and worker.freshness is Freshness.HELD:
                worker.freshness = Freshness.EXCUSED
                self.agenda.do(Excuse(worker.pid))
        if now < excuse_at:
            self.agenda.wake(excuse_at)

    def plan_placeholder(self, workers: Iterable[Worker], graceful_timeout: float, now: float) -> None:
        """Fork a placeholder where nobody else can tell those who wait why they do; end it when there is new code."""
        live = [worker for worker in workers if worker.is_active]
        if self.since == math.inf:
            for placeholder in [worker for worker in live if worker.generation == PLACEHOLDER]:
                placeholder.dismiss(graceful_timeout, now)
                self.agenda.do(Retire(placeholder.pid))
            return
        told = any(worker.serves or worker.generation == PLACEHOLDER for worker in live)
        if now >= self.since + IMPORT_PATIENCE and not told:
            self.forking.order(Spawn(self.forking.free_slot(workers), PLACEHOLDER), now)
