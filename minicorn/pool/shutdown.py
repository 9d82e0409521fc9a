"""The end of a server: nobody gives to the hand-off queue any more; when all have said so, what
waits in it is served; then everybody ends.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from enum import IntEnum

from minicorn.pool.actions import Agenda, Drain, Quit, Seal
from minicorn.pool.life import QUIT_GRACE, Closing, State, Worker
from minicorn.record import Record

# Share of the graceful timeout after which a worker that has not said that it is sealed is waited for no longer, as
# where C code keeps the GIL. What it gives away after all, it takes back itself when it drains
UNSEALED = 0.25


class Stop(IntEnum):
    """How the server ends; a higher one overrules."""

    GRACEFUL = 1
    QUICK = 2


class Shutdown(Record):
    """The end of the server, as it was asked for."""

    how: Stop
    at: float  # until then the server is unready, but serves
    _draining: bool = False
    _drain_by: float = math.inf

    def plan(self, workers: Collection[Worker], graceful_timeout: float, now: float, agenda: Agenda) -> None:
        """Bring all workers to their ends."""
        for worker in workers:
            if worker.is_active:
                worker.dismiss(graceful_timeout, now)  # it hears of it by Seal, then by Drain
        retiring = [worker for worker in workers if worker.state is State.RETIRING]
        for worker in retiring:
            if worker.closing is Closing.OPEN:
                worker.closing = Closing.SEALING
                agenda.do(Seal(worker.pid))
        if not self._draining:
            self._drain_by = min(self._drain_by, now + UNSEALED * graceful_timeout)
            agenda.wake(self._drain_by)
            unsealed = [worker for worker in retiring if worker.was_ready and worker.closing < Closing.SEALED]
            self._draining = not unsealed or now >= self._drain_by
        if self._draining:
            for worker in retiring:  # whoever was being born when the rest was told comes later
                if worker.closing < Closing.DRAINING:
                    worker.closing = Closing.DRAINING
                    agenda.do(Drain(worker.pid))
        if self.how is Stop.QUICK:
            for worker in workers:
                if worker.state is not State.KILLED and worker.patience > now + QUIT_GRACE:
                    worker.patience = now + QUIT_GRACE
                    agenda.do(Quit(worker.pid))
