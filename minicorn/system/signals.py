"""Signals: handlers that only record; a wakeup for the loop; `take()` for what came.

A handler appends to a set and returns: no log, no exception thrown into the application. Signal
numbers are never read from the wakeup's pipe, which is drained before the set is read.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from types import FrameType

from minicorn.system.wakeup import Wakeup

# Most urgent first; what came several times is one
URGENCY = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGWINCH,  # before HUP, which ends what it begins: where both have come, somebody serves
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)

# Asks a worker for the stacks of all its threads, while it goes on
STACKS = signal.SIGUSR2


class Signals:
    """The signals that this process takes; `fd` is readable when one has come."""

    def __init__(self, managed: Iterable[signal.Signals]) -> None:
        self._managed = tuple(managed)
        self._pending: set[int] = set()
        self._previous: dict[signal.Signals, object] = {}
        self._wakeup = Wakeup()
        self.fd = self._wakeup.fd

    def install(self) -> None:
        """Take the signals, and let those in that were held back; main thread only."""
        signal.set_wakeup_fd(self._wakeup.write_fd, warn_on_full_buffer=False)
        for signum in self._managed:
            self._previous.setdefault(signum, signal.signal(signum, self._record))
            # EINTR cancels queries inside C libraries (libpq)
            signal.siginterrupt(signum, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._managed)

    def _record(self, signum: int, frame: FrameType | None) -> None:
        self._pending.add(signum)

    def take(self) -> list[signal.Signals]:
        """Take the signals that have come since the last call, each once, most urgent first."""
        self._wakeup.drain()
        came = [signum for signum in URGENCY if signum in self._pending]
        self._pending.difference_update(came)
        return came

    def was_ignored(self, signum: signal.Signals) -> bool:
        """Whether `signum` was ignored when we were started, as nohup does with HUP."""
        return self._previous.get(signum) == signal.SIG_IGN

    def hand_on(self) -> None:
        """Leave the signals to the next image, before an exec, signals blocked: what came meanwhile waits for it, and
        it finds ignored what we found so. `install` undoes this."""
        came = self.take()
        for signum in filter(self.was_ignored, self._managed):
            signal.signal(signum, signal.SIG_IGN)  # drops what waits
        for signum in came:
            os.kill(os.getpid(), signum)

    def restore(self) -> None:
        """Give the signals back to whoever had them, and close the pipe."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]  # it came from signal.signal
        signal.set_wakeup_fd(-1)
        self.close()

    def close(self) -> None:
        """Close the pipe (in a child: its copies of the parent's)."""
        self._wakeup.close()


def reset(managed: Iterable[signal.Signals]) -> None:
    """Forget the parent's wakeup pipe and handlers, in a forked child, signals blocked."""
    signal.set_wakeup_fd(-1)
    for signum in managed:
        signal.signal(signum, signal.SIG_DFL)
