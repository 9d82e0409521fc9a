"""The children besides the workers: what watches files, shows figures or runs hooks for the arbiter.

An auxiliary serves the arbiter, never a client: its death changes nothing for requests. It is
forked when it is due, started again when it dies, ever more slowly when it dies young, and it
ends by itself when its channel does.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import time
from collections.abc import Callable, Iterator

from minicorn.logs.logger import LOGGER
from minicorn.pool.backoff import backoff, strike
from minicorn.pool.exits import name_signal
from minicorn.record import Record, fresh
from minicorn.system import channel, spawn
from minicorn.system.channel import Channel, Message
from minicorn.system.listeners import Listener
from minicorn.system.title import set_title


class Auxiliary(Record):
    """One child: what it does, whom its words are for, and how it fares. Times are monotonic seconds."""

    name: str
    run: Callable[[Channel], int]  # in the child, signals at their defaults; gives the exit code
    hear: Callable[[Message], None]  # in the arbiter
    listener: Listener | None = None  # its own, which the arbiter has bound for all that come one after the other
    due: float = 0.0
    pid: int = 0
    channel: Channel | None = None
    born: float = 0.0
    strikes: int = 0
    dismissed: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.pid}"

    def spawned(self, pid: int, channel: Channel, now: float) -> None:
        """Note that it has been forked as `pid`."""
        self.pid, self.channel, self.born, self.due = pid, channel, now, math.inf
        self.dismissed = False

    def failed(self, now: float) -> float:
        """Note that it has died, or could not be forked; gives the seconds until it is tried again."""
        self.strikes = strike(self.strikes, now - self.born if self.pid else 0.0)
        self.pid, self.channel = 0, None
        delay = backoff(self.strikes)
        self.due = now + delay
        return delay

    def start(self, let_go: Callable[[], None], now: float) -> None:
        """Fork it; the child does `let_go()` first."""

        def be() -> int:
            ours.close()
            let_go()
            set_title(f"minicorn: {self.name}")
            spawn.ignore_terminal()
            return self.run(theirs)

        try:
            ours, theirs = channel.pair()
            with contextlib.closing(theirs):
                try:
                    self.spawned(spawn.fork(be), ours, now)
                except OSError:
                    ours.close()
                    raise
        except OSError as error:
            delay = self.failed(now)
            LOGGER.error("cannot start the %s: %s; the next try in %g s", self.name, error.strerror, delay)

    def listen(self) -> None:
        """Read what it has said, and hand each message to `hear`."""
        if self.channel is not None:
            for message in self.channel.receive()[0]:
                self.hear(message)

    def dismiss(self) -> None:
        """End it so that another takes its place: it leaves by itself, which is not counted as a death."""
        if self.channel is not None:
            self.dismissed = True
            self.channel.finish()

    def bury(self, code: int, wanted: bool, now: float) -> None:
        """Note that it has been reaped; another is started if it is still `wanted`."""
        self.listen()  # its last words
        if self.channel is not None:
            self.channel.close()
        name, cause = str(self), f"with exit code {code}" if code >= 0 else f"of {name_signal(-code)}"
        if self.dismissed:
            self.pid, self.channel, self.due = 0, None, now
            LOGGER.debug("the %s has ended %s, as it was told", name, cause)
            return
        delay = self.failed(now)
        if wanted:
            LOGGER.warning("the %s has died %s; the next comes in %g s", name, cause, delay)
        else:
            LOGGER.debug("the %s has ended %s", name, cause)

    def tell(self, word: str, value: object = "") -> bool:
        """Say something to it, if it lives; whether it was taken."""
        return self.channel is not None and self.channel.send(word, value)


class Auxiliaries(Record):
    """All auxiliaries of one arbiter."""

    members: list[Auxiliary] = fresh(list)

    def due(self, now: float) -> list[Auxiliary]:
        """The auxiliaries that are to be forked now."""
        return [auxiliary for auxiliary in self.members if auxiliary.due <= now]

    @property
    def wake_at(self) -> float:
        """When the next one is to be forked, in monotonic seconds."""
        return min((auxiliary.due for auxiliary in self.members), default=math.inf)

    def by_pid(self, pid: int) -> Auxiliary | None:
        """The auxiliary whose pid this is, if any."""
        return next((auxiliary for auxiliary in self.members if pid and auxiliary.pid == pid), None)

    @property
    def listeners(self) -> Iterator[Listener]:
        """The listeners that belong to an auxiliary."""
        for auxiliary in self.members:
            if auxiliary.listener is not None:
                yield auxiliary.listener

    @property
    def channels(self) -> Iterator[tuple[Auxiliary, Channel]]:
        """The auxiliaries that live, each with the channel to it."""
        for auxiliary in self.members:
            if auxiliary.channel is not None:
                yield auxiliary, auxiliary.channel

    def end(self, deadline: float) -> None:
        """End them by closing their channels, kill those that are still there at `deadline`, and wait for all."""
        lines = {line.fd: line for _, line in self.channels}
        for line in lines.values():
            line.finish()
        while lines and (left := deadline - time.monotonic()) > 0:
            for fd in select.select(list(lines), [], [], left)[0]:
                if not lines[fd].receive()[1]:
                    del lines[fd]
        for auxiliary, line in self.channels:
            if line.fd in lines:
                os.kill(auxiliary.pid, signal.SIGKILL)
            os.waitpid(auxiliary.pid, 0)
            line.close()
