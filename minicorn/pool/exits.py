"""A worker's end in one record: who, of what, doing what. Values in, text out."""

from __future__ import annotations

import re
import signal

from minicorn.pool.actions import Level
from minicorn.pool.life import Cause, Exit, Worker

# By number, since `signal` has two names for some
_NAMES = {int(signum): signum.name for signum in signal.Signals}

# How faulthandler writes a frame of ours, and one of the import system
_OURS = f'  File "{__file__.rpartition("/pool/")[0]}/'
_IMPORT = re.compile(r'  File "(<frozen importlib|.*/importlib/__init__\.py")')


def name_signal(number: int) -> str:
    """The name of a signal; most of the real-time ones have none, and are told by number."""
    return _NAMES.get(number, f"signal {number}")


def cause_of(worker: Worker, exit: Exit, out_of_memory: bool) -> Cause:
    """The cause of a worker's end; `out_of_memory`: the kernel has killed it."""
    if worker.cause is not None:
        return worker.cause
    if not worker.was_ready and not worker.dismissed:
        return Cause.BOOT
    if out_of_memory:
        return Cause.OOM
    if exit.signum:
        return Cause.SIGNAL
    if exit.code or not worker.dismissed:
        return Cause.EXIT
    return Cause.RECYCLED if worker.wish else Cause.RETIRED


def trim(stacks: str) -> str:
    """What faulthandler has written, without our frames below the application's, which are the same each time."""
    return "\n\n".join(map(_trim_one, stacks.split("\n\n")))


def _trim_one(stack: str) -> str:
    lines = stack.split("\n")
    theirs = False
    for number, line in enumerate(lines):
        if theirs and line.startswith(_OURS):
            del lines[number:]
            while _IMPORT.match(lines[-1]):
                del lines[-1]
            break
        theirs |= line.startswith('  File "') and not line.startswith(_OURS)
    return "\n".join(lines)


def describe_end(exit: Exit) -> str:
    """Describe an end in words, as far as the system tells."""
    return f"killed by {name_signal(exit.signum)}" if exit.signum else f"exit code {exit.code}"


def describe_death(
    worker: Worker, exit: Exit, doing: str, idle: bool, requests: int, verdict: str, now: float
) -> tuple[Level, str]:
    """The level and the text of a death for the log.

    `doing` is its last activity, `idle` whether that was none, `verdict` why we ended it ("" when we did not).
    """
    life = f"aged {now - worker.born:.0f} s" + ("" if worker.template else f" after {requests} requests")
    if worker.memory:
        life += f", {worker.memory >> 20} MiB"
    end = describe_end(exit)
    if verdict:
        level = Level.INFO if worker.dismissed and not worker.was_ready else Level.ERROR
        return level, f"{worker} {verdict}: {end}, {life}"
    if exit.signum:
        return Level.ERROR, f"{worker} was {end}, which we did not send, {doing}, {life}"
    if exit.code or not idle:  # no exit of ours: the application's own, at its import or within a request
        return Level.ERROR, f"{worker} ended with {end}, {doing}, {life}"
    return Level.INFO, f"{worker} has {'ended' if worker.template else 'retired'}, {life}"
