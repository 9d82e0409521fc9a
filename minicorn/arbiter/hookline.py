"""The arbiter's line to the child that runs its hooks: told in order, answered, judged by a deadline.

The arbiter never waits: what a hook guards is done when its answer comes, or not at all. A child
that is late is killed, and a new one runs the file again and is told the rest. While there is none,
calls wait, but not for ever and not without bound: what is not run is said.
"""

from __future__ import annotations

import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable

from minicorn.arbiter.auxiliary import Auxiliary
from minicorn.config.settings import Settings
from minicorn.logs.logger import LOGGER
from minicorn.record import Record
from minicorn.system.channel import RAN, Channel, Message
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# The hooks of the arbiter; the others are run by the workers
ARBITERS = ("on_starting", "when_ready", "on_reload", "pre_exec", "child_exit", "nworkers_changed", "on_exit")
# Most calls that may wait: fewer than a channel holds
WAITING_MOST = 500


class Call(Record):
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
        self._missed: Counter[str] = Counter()  # those that were too many, by name
        self._leaving = 0  # the pid of a child that is told nothing more: its file is old, or it has been killed
        self._pid = 0  # of the child that was seen last
        self._wake_at = math.inf
        self.auxiliary = Auxiliary("hooks process", self._run, self._hear, due=math.inf)
        self._appoint()

    def renew(self, settings: Settings) -> None:
        """Run the hooks of other settings from now on, in a new child, even where the file reads the same."""
        if settings is self._settings:
            return
        self._settings = settings
        if self.auxiliary.channel is not None and self.auxiliary.pid != self._leaving:
            self._leaving = self.auxiliary.pid
            self.auxiliary.dismiss()
        self._appoint()

    def _appoint(self) -> None:
        if self.auxiliary.pid == 0:
            self.auxiliary.due = 0.0 if set(self._settings.hooks) & set(ARBITERS) else math.inf

    def call(self, name: str, *args: object, then: Callable[[bool], object] = bool) -> None:
        """Run the hook `name`, if there is one, then do `then(whether all went well)`."""
        if name not in self._settings.hooks:
            then(True)
        elif len(self._calls) >= WAITING_MOST:
            self._missed[name] += 1
            then(False)
        else:
            self._number += 1
            self._calls[self._number] = Call(name, args, then)

    @property
    def wake_at(self) -> float:
        """When `step` is due: at once if the child has begun or died since."""
        return self._wake_at if self.auxiliary.pid == self._pid else 0.0

    def step(self, now: float) -> None:
        """Send the calls that wait, and judge the one that runs by its deadline."""
        child = self.auxiliary
        if child.pid != self._pid:
            self._change(child.pid)
        if child.channel is not None and child.pid != self._leaving:
            for number, call in self._calls.items():
                if not call.sent:
                    child.tell(call.name, [number, *call.args])
                    call.sent = True
        if not self._calls:
            if self._missed:
                self._fail((), "too many calls have waited")
            self._wake_at = math.inf
            return
        first = next(iter(self._calls.values()))
        self._wake_at = first.deadline = min(first.deadline, now + self._settings.config_timeout)
        if now >= first.deadline:
            self._give_up(first)

    def _change(self, pid: int) -> None:
        """The child has died, or is new: the call that was running has failed, those not begun go to the next child."""
        self._pid, self._leaving = pid, 0
        if pid == 0 and not set(self._settings.hooks) & set(ARBITERS):
            self.auxiliary.due = math.inf
        if begun := [number for number, call in self._calls.items() if call.sent][:1]:
            self._fail(begun, "the hooks process has died")
        for call in self._calls.values():
            call.sent = False

    def _give_up(self, first: Call) -> None:
        """Fail the first call, which has had its time: kill the child that runs it."""
        pid, patience = self.auxiliary.pid, self._settings.config_timeout
        if pid and (first.sent or pid == self._leaving):
            late = f"hook {first.name} takes" if first.sent else "a hooks process whose file is old takes"
            LOGGER.error("%s longer than %g s: it is killed", late, patience)
            self._leaving = pid
            os.kill(pid, signal.SIGKILL)
            first.deadline = math.inf
        elif not first.sent:
            self._fail(list(self._calls), f"there is no hooks process for {patience:g} s")

    def _fail(self, numbers: Iterable[int], why: str) -> None:
        lost = [self._calls.pop(number) for number in numbers]
        missed, self._missed = self._missed + Counter(call.name for call in lost), Counter()
        if missed:
            LOGGER.error("%s; not run: %s", why, ", ".join(f"{name} ({n})" for name, n in missed.items()))
        for call in lost:
            call.then(False)

    def _run(self, channel: Channel) -> int:
        return _serve(channel, self._settings, self._address)

    def _hear(self, message: Message) -> None:
        if message.word == RAN:
            number, well = message.value
            if number in self._calls:
                self._calls.pop(number).then(well)


def _serve(channel: Channel, settings: Settings, address: list[str]) -> int:
    """Run hooks as they are called for, in the hooks process, until its channel ends; the exit code."""
    from minicorn.logs.tracebacks import format_traceback
    from minicorn.serving.hooks import make_server, make_worker, run_file, run_hook

    os.environ.update(settings.variables)
    arbiter = os.getppid()
    try:
        hooks: dict[str, Any] = run_file(settings)
    except BaseException as error:
        LOGGER.error("%s cannot be run for its hooks\n%s", settings.config, format_traceback(error))
        return 1
    server = make_server(settings, arbiter, address)
    alive = True
    while alive:
        messages, alive = channel.wait()
        for message in messages:
            number, *values = message.value
            if message.word == "child_exit":
                pid, slot = values
                values = [make_worker(settings, pid, slot, arbiter)]
            elif message.word == "nworkers_changed":
                server.num_workers = values[0]
            hook = hooks.get(message.word)  # of a call from before the file was changed there may be none
            well = hook is None or run_hook(message.word, hook, server, *values)
            channel.send(RAN, [number, well])
    return 0
