"""The children besides the workers: what watches files, shows figures or runs hooks for the arbiter.

An attendant serves the arbiter, never a client: its death changes nothing for requests. It is
forked when it is due, started again when it dies, ever more slowly when it dies young, and it
ends by itself when its channel does. Nothing is forked here: the arbiter asks what is due.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from minicorn.backoff import backoff, strike
from minicorn.channel import Channel, Message
from minicorn.listeners import Listener


@dataclass(slots=True, eq=False)
class Attendant:
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

    def __str__(self) -> str:
        return f"{self.name} {self.pid}"

    def spawned(self, pid: int, channel: Channel, now: float) -> None:
        """It has been forked."""
        self.pid, self.channel, self.born, self.due = pid, channel, now, math.inf

    def missed(self, now: float) -> float:
        """It has died, or could not be forked; the seconds until it is tried again."""
        self.strikes = strike(self.strikes, now - self.born if self.pid else 0.0)
        self.pid, self.channel = 0, None
        delay = backoff(self.strikes)
        self.due = now + delay
        return delay

    def tell(self, word: str, text: str = "") -> None:
        """Say something to it, if it lives."""
        if self.channel is not None:
            self.channel.send(word, text)


@dataclass(slots=True)
class Attendants:
    """All of one arbiter's."""

    members: list[Attendant] = field(default_factory=list)

    def due(self, now: float) -> list[Attendant]:
        """Those to be forked now."""
        return [attendant for attendant in self.members if attendant.due <= now]

    @property
    def wake_at(self) -> float:
        """When the next is due."""
        return min((attendant.due for attendant in self.members), default=math.inf)

    def by_pid(self, pid: int) -> Attendant | None:
        """Whose pid it is."""
        return next((attendant for attendant in self.members if pid and attendant.pid == pid), None)

    @property
    def listeners(self) -> Iterator[Listener]:
        """Those that are some attendant's own."""
        for attendant in self.members:
            if attendant.listener is not None:
                yield attendant.listener

    @property
    def channels(self) -> Iterator[tuple[Attendant, Channel]]:
        """The lines to those that live."""
        for attendant in self.members:
            if attendant.channel is not None:
                yield attendant, attendant.channel
