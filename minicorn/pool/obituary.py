"""A worker's end in one record: who, of what, doing what. Values in, text out."""

from __future__ import annotations

import signal

from minicorn.pool.life import Exit, Worker

# Written by number: dir(signal) has two names for some
_NAMES = {int(signum): signum.name for signum in signal.Signals}


def name_signal(number: int) -> str:
    """What it is called; most of the real-time ones have no name."""
    return _NAMES.get(number, f"signal {number}")


def cause_of(worker: Worker, exit: Exit, out_of_memory: bool) -> str:
    """A word for why a worker has gone, by which such ends are counted."""
    if worker.cause:
        return worker.cause
    if not worker.was_ready and not worker.dismissed:
        return "boot"
    if out_of_memory:
        return "oom"
    if exit.signum:
        return "signal"
    if exit.code or not worker.dismissed:
        return "exit"
    return "recycled" if worker.wish else "retired"


def cause_of_death(exit: Exit) -> str:
    """A word for an end that was not the arbiter's doing."""
    if exit.signum:
        return name_signal(exit.signum).replace(" ", "-")
    return f"exit-{exit.code}" if exit.code else "stopped"


def obituary(worker: Worker, exit: Exit, doing: str, requests: int, verdict: str, now: float) -> tuple[str, str]:
    """The level and the text for the log.

    `doing` is its last activity, `verdict` why we ended it ("" when we did not).
    """
    life = f"aged {now - worker.born:.0f} s" + ("" if worker.template else f" after {requests} requests")
    if worker.memory:
        life += f", {worker.memory >> 20} MiB"
    if exit.signum:
        end = f"killed by {name_signal(exit.signum)}"
    else:
        end = f"exit code {exit.code}"
    if verdict:
        level = "info" if worker.dismissed and not worker.was_ready else "error"
        return level, f"{worker} {verdict}: {end}, {life}"
    if exit.signum:
        return "error", f"{worker} was {end}, which we did not send, {doing}, {life}"
    if exit.code:
        return "error", f"{worker} ended with {end}, {doing}, {life}"
    return "info", f"{worker} has {'ended' if worker.template else 'retired'}, {life}"
