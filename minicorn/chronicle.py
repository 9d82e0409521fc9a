"""What the arbiter remembers of its life, and tells in its ledger: signals obeyed, exits by cause,
rolls and upgrades with their errors. It goes on where the arbiter's image before has left off.
"""

import os
import signal
import time
from collections import Counter, deque

from minicorn import upgrade
from minicorn.heartbeat import Page
from minicorn.ledger import Ledger
from minicorn.listeners import Listener
from minicorn.pool import Pool
from minicorn.rolls import Rolled
from minicorn.settings import Settings
from minicorn.standing import ERROR_MOST, ERRORS_MOST, TEXT_MOST, Complaint, Listening, Standing, stage_of
from minicorn.upgrade import Upgrade
from minicorn.version import VERSION


class Chronicle:
    """One server's, from its start, across upgrades, to its end."""

    def __init__(self, ledger: Ledger, settings: Settings, listeners: list[Listener], upgraded: bool = False) -> None:
        """`upgraded`: the ledger is that of the image before."""
        self._ledger = ledger
        self._settings = settings
        self._listeners = tuple(Listening(each.name, os.fstat(each.fd).st_ino) for each in listeners)
        before = ledger.standing if upgraded else Standing(started=time.monotonic())
        self.reloads = before.reloads
        self._refusals, self._refusal = before.refusals, before.refusal
        self._started = before.started
        self._upgrades = before.upgrades + upgraded
        self._obeyed, self._exits = Counter(before.obeyed), Counter(before.exits)
        self._rolled, self._rolled_at, self._roll_error = before.rolled, before.rolled_at, before.roll_error
        self._errors = deque(before.errors, ERRORS_MOST)

    def obeyed(self, signum: signal.Signals) -> None:
        """A signal has had its effect."""
        self._obeyed[signum.name] += 1

    def refused_reload(self, error: str) -> None:
        """A wish for new code was not taken up."""
        self._refusals, self._refusal = self._refusals + 1, error[-TEXT_MOST:]

    def complain(self, text: str, at: float) -> None:
        """An error was logged, at a time since the epoch."""
        self._errors.append(Complaint(at, text[:ERROR_MOST]))

    def buried(self, page: Page, cause: str) -> None:
        """The worker of `page` has gone for `cause`."""
        self._exits[cause] += 1
        at, error = page.read_error()
        if error:
            self.complain(error, at)
        self._ledger.fold(page)

    def blame(self, error: str) -> None:
        """Why the roll that has just ended failed."""
        if error:
            self._roll_error = error[-TEXT_MOST:]

    def tell(self, pool: Pool, upgrading: Upgrade, now: float) -> None:
        """Write it down, where anything is new."""
        if pool.rolls.last is not None and pool.rolls.last is not self._rolled:
            self._note_roll(pool.rolls.last)
        self._ledger.tell(
            Standing(
                pid=os.getpid(),
                version=VERSION,
                app=self._settings.app,
                title=self._settings.title,
                listeners=self._listeners,
                started=self._started,
                stage=stage_of(pool),
                size=pool.size,
                generation=pool.rolls.generation,
                rolling=pool.rolls.current.generation if pool.rolls.current else 0,
                reloads=pool.rolls.wishes,
                refusals=self._refusals,
                refusal=self._refusal,
                rolled=self._rolled,
                rolled_at=self._rolled_at,
                roll_error=self._roll_error,
                upgrading=upgrading.state is not upgrade.State.IDLE,
                upgrades=self._upgrades,
                upgrade_error=upgrading.error[-TEXT_MOST:],
                obeyed=dict(self._obeyed),
                exits=dict(self._exits),
                errors=tuple(self._errors),
            )
        )
        self._ledger.beat(now)

    def _note_roll(self, rolled: Rolled) -> None:
        self._rolled, self._rolled_at = rolled, time.time()
        if rolled.outcome != "failed":
            self._roll_error = ""
