"""What the arbiter remembers of its life, and tells in its ledger: signals obeyed, exits by cause,
rolls and upgrades with their errors. It goes on where the arbiter's image before has left off.
"""

from __future__ import annotations

import os
import signal
import time

from minicorn.arbiter.upgrade import State, Upgrade
from minicorn.config.settings import Settings
from minicorn.figures.heartbeat import Page
from minicorn.figures.ledger import Ledger
from minicorn.pool.life import Cause
from minicorn.pool.pool import Pool
from minicorn.pool.rolls import Ending
from minicorn.pool.standing import ERROR_MOST, ERRORS_MOST, TEXT_MOST, Complaint, Listening, Standing, stage_of
from minicorn.record import replace
from minicorn.system.listeners import Listener
from minicorn.version import VERSION


class Chronicle:
    """The record of one server, from its start, across upgrades, to its end."""

    def __init__(self, ledger: Ledger, settings: Settings, listeners: list[Listener], upgraded: bool) -> None:
        """`upgraded`: the ledger is that of the image before."""
        before = ledger.standing if upgraded else Standing(started=time.monotonic())
        self._ledger = ledger
        self._standing = replace(
            before,
            pid=os.getpid(),
            version=VERSION,
            app=settings.app,
            title=settings.title,
            listeners=tuple(Listening(each.name, os.fstat(each.fd).st_ino) for each in listeners),
            upgrades=before.upgrades + upgraded,
        )

    @property
    def reloads(self) -> int:
        """Wishes for new code that were heard, by the image before as well."""
        return self._standing.reloads

    def obeyed(self, signum: signal.Signals) -> None:
        """Count a signal that has had its effect."""
        self._note(obeyed=_count(self._standing.obeyed, signum.name))

    def refused_reload(self, error: str) -> None:
        """Count a wish for new code that was not taken up, and keep the reason."""
        self._note(refusals=self._standing.refusals + 1, refusal=error[-TEXT_MOST:])

    def complain(self, text: str, at: float) -> None:
        """Keep an error that was logged; `at` in seconds since the epoch."""
        self._note(errors=(*self._standing.errors, Complaint(at, text[:ERROR_MOST]))[-ERRORS_MOST:])

    def buried(self, page: Page, cause: Cause) -> None:
        """Count the end of the worker of `page`, and take over its counters and its last error."""
        self._note(exits=_count(self._standing.exits, cause))
        at, error = page.read_error()
        if error:
            self.complain(error, at)
        self._ledger.fold(page)

    def blame(self, error: str) -> None:
        """Keep why the roll that has just ended has failed; "" where it has not."""
        if error:
            self._note(roll_error=error[-TEXT_MOST:])

    def publish(self, pool: Pool, upgrade: Upgrade, now: float) -> None:
        """Bring the record up to date, and write it into the ledger if anything is new."""
        rolled = pool.rolls.last
        if rolled is not None and rolled is not self._standing.rolled:
            self._note(rolled=rolled, rolled_at=time.time())
            if rolled.outcome is not Ending.FAILED:
                self._note(roll_error="")
        self._note(
            stage=stage_of(pool),
            size=pool.size,
            generation=pool.rolls.generation,
            rolling=pool.rolls.current.generation if pool.rolls.current else 0,
            reloads=pool.rolls.wishes,
            upgrading=upgrade.state is not State.IDLE,
            upgrade_error=upgrade.error[-TEXT_MOST:],
        )
        self._ledger.write(self._standing)
        self._ledger.beat(now)

    def _note(self, **news: object) -> None:
        self._standing = replace(self._standing, **news)


def _count(counts: dict[str, int], name: str) -> dict[str, int]:
    """`counts` with one more of `name`."""
    return counts | {name: counts.get(name, 0) + 1}
