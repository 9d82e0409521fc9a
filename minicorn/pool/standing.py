"""Where a server stands, as its arbiter tells it: one document, kept in its ledger.

It is what `minicornctl` and the monitor show, and what a wish (reload, upgrade, ...) is
followed by: each wish that is obeyed is counted, and what comes of it names the count it answers.
Monotonic seconds, but for what happened `at`, which is seconds since the epoch.
"""

from __future__ import annotations

import json
from enum import StrEnum

from minicorn.pool.pool import Pool
from minicorn.pool.rolls import Ending, Rolled
from minicorn.record import Value, as_dict, fresh

# Characters that are kept of a long text: its end, where the cause is
TEXT_MOST = 3000
ERRORS_MOST = 8
ERROR_MOST = 400


class Stage(StrEnum):
    """What the server as a whole is doing."""

    BOOTING = "booting"  # no worker has been ready yet
    SERVING = "serving"
    PARKED = "parked"  # SIGWINCH: no workers, the sockets stay
    DRAINING = "draining"  # it ends; unready, though it may serve for a while


def stage_of(pool: Pool) -> Stage:
    """The stage that `pool` is in."""
    if pool.stopping is not None:
        return Stage.DRAINING
    if not pool.booted:
        return Stage.BOOTING
    return Stage.PARKED if pool.parked else Stage.SERVING


class Complaint(Value):
    """An error that was logged."""

    at: float
    text: str


class Listening(Value):
    """A socket that listens: its address, and its number by which the system tells of its queue."""

    name: str
    inode: int


class Standing(Value):
    """All that the arbiter tells, but for what its workers' pages and the totals say."""

    pid: int = 0
    version: str = ""
    app: str = ""
    title: str = ""
    listeners: tuple[Listening, ...] = ()
    started: float = 0.0
    stage: Stage = Stage.BOOTING
    size: int = 0  # workers wanted
    generation: int = 1  # of the code that serves
    rolling: int = 0  # the generation that a roll under way leads to; 0 without one
    reloads: int = 0  # wishes for new code that were heard
    refusals: int = 0  # wishes for new code that were not taken up: the configuration is broken
    refusal: str = ""  # why the last was not
    rolled: Rolled | None = None  # the last roll that ended
    rolled_at: float = 0.0
    roll_error: str = ""  # why, if it failed
    upgrading: bool = False
    upgrades: int = 0  # carried out
    upgrade_error: str = ""  # why the last one was not
    obeyed: dict[str, int] = fresh(dict)  # by the signal's name
    exits: dict[str, int] = fresh(dict)  # of workers, by cause
    errors: tuple[Complaint, ...] = ()  # the last, oldest first

    def to_json(self) -> str:
        """The document as a text, which `from_json` reads."""
        return json.dumps(self, default=as_dict, ensure_ascii=False)


def from_json(text: str) -> Standing:
    """Read what `to_json` has written. ValueError for anything else."""
    document = json.loads(text)
    rolled = document.pop("rolled")
    return Standing(
        listeners=tuple(Listening(**each) for each in document.pop("listeners")),
        stage=Stage(document.pop("stage")),
        rolled=Rolled(rolled["generation"], rolled["wish"], Ending(rolled["outcome"])) if rolled else None,
        errors=tuple(Complaint(**each) for each in document.pop("errors")),
        **document,
    )
