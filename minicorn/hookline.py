"""The arbiter's line to the child that runs its hooks: told in order, answered, judged by a deadline.

The arbiter never waits: what a hook guards is done when its answer comes, or not at all. A child
that is late is killed, and a new one reads the file again.
"""

import json
import logging
import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from minicorn.attendant import Attendant
from minicorn.channel import Channel, Message
from minicorn.hooks import ARBITERS, RAN, attend
from minicorn.settings import Settings

LOGGER = logging.getLogger("minicorn")


@dataclass(slots=True)
class Call:
    """A hook that is to run, or runs until `deadline`, and what follows from its answer."""

    name: str
    args: tuple[object, ...]
    then: Callable[[bool], object]
    deadline: float = math.inf
    sent: bool = False


class HookLine:
    """The hooks of one arbiter. Times are monotonic seconds."""

    def __init__(self, settings: Settings, address: list[str]) -> None:
        self._settings = settings
        self._address = address
        self._calls: dict[int, Call] = {}
        self._number = 0
        self._leaving = 0  # the pid of a child that has read a file that does not count any more
        self._pid = 0
        self.attendant = Attendant("hooks process", self._run, self._hear, due=math.inf)
        self._appoint()

    def renew(self, settings: Settings) -> None:
        """The file has been read again: a new child takes over."""
        self._settings = settings
        if self.attendant.channel is not None and self.attendant.pid != self._leaving:
            self._leaving = self.attendant.pid
            self.attendant.channel.finish()
        self._appoint()

    def _appoint(self) -> None:
        if self.attendant.pid == 0:
            self.attendant.due = 0.0 if set(self._settings.hooks) & set(ARBITERS) else math.inf

    def tell(self, name: str, *args: object, then: Callable[[bool], object] = bool) -> None:
        """Run the hook `name`, if there is one, then do `then(whether all went well)`."""
        if name not in self._settings.hooks:
            then(True)
            return
        self._number += 1
        self._calls[self._number] = Call(name, args, then)

    def step(self, now: float) -> float:
        """Send what waits, judge what runs; when to come again."""
        child = self.attendant
        if child.pid != self._pid:  # it has died, or is new: what it had in hand is lost
            self._pid = child.pid
            self._fail([number for number, call in self._calls.items() if call.sent])
            if child.pid == 0 and not set(self._settings.hooks) & set(ARBITERS):
                child.due = math.inf
        if child.channel is not None and child.pid != self._leaving:
            for number, call in self._calls.items():
                if not call.sent:
                    child.tell(call.name, json.dumps([number, *call.args]))
                    call.sent = True
        if first := next((call for call in self._calls.values() if call.sent), None):
            first.deadline = min(first.deadline, now + self._settings.config_timeout)
            if now >= first.deadline and child.pid:
                LOGGER.error("hook %s takes longer than %g s: it is killed", first.name, self._settings.config_timeout)
                os.kill(child.pid, signal.SIGKILL)
                self._fail([number for number, call in self._calls.items() if call.sent])
                return math.inf
            return first.deadline
        return math.inf

    def _fail(self, numbers: list[int]) -> None:
        for number in numbers:
            self._calls.pop(number).then(False)

    def _run(self, channel: Channel) -> int:
        variables = dict(pair.partition("=")[::2] for pair in self._settings.env)
        return attend(channel, self._settings, self._address, variables)

    def _hear(self, message: Message) -> None:
        if message.word == RAN:
            number, well = json.loads(message.text)
            if number in self._calls:
                self._calls.pop(number).then(well)
