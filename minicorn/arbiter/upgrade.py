"""Upgrade in place, the arbiter's side: wanted, checked in a child, then carried out.

    IDLE ──USR2──► WANTED ──no roll runs──► CHECKING ──the child says yes──► DUE ──pre_exec agrees──► exec
                     ▲──── HUP: the configuration is read anew ────┴─────────┘

The child runs the new program as it was called, as far as loading the application, and sees whether
what is new can be had: a pid file, a monitor's address. A failed check leaves all as it was. Neither
the child nor the hook is waited for.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from enum import Enum

from minicorn.arbiter import succession
from minicorn.arbiter.hookline import HookLine
from minicorn.arbiter.regimes import Regimes
from minicorn.arbiter.resources import Resources
from minicorn.logs.logger import LOGGER
from minicorn.pool.exits import name_signal
from minicorn.pool.pool import Pool
from minicorn.system import spawn
from minicorn.system.scratch import open_memory
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import IO

# Last bytes of what a failed check has said on standard error that are logged
SAID_MOST = 16384
# Longest first line of a script that execve(2) heeds
LINE_MOST = 256


class State(Enum):
    """How far the wish for an upgrade has come."""

    IDLE = "idle"  # there is none
    WANTED = "wanted"  # a roll must end first
    CHECKING = "checking"  # a child sees whether the new program loads
    DUE = "due"  # it does


class Upgrade:
    """One arbiter's wish to become a newer one."""

    def __init__(
        self, cwd: str, patience: float, resources: Resources, pool: Pool, regimes: Regimes, hooks: HookLine
    ) -> None:
        """`cwd`: where the program was called; `patience`: seconds that the check may take."""
        self.state = State.IDLE
        self.cwd = cwd
        self.error = ""  # why the last one was off
        self._arguments = _arguments(cwd)
        self._patience = patience
        self._resources = resources
        self._pool = pool
        self._regimes = regimes
        self._hooks = hooks
        self._asked = False  # pre_exec runs
        self._child = 0  # the check
        self._deadline = 0.0
        self._outdated = False  # what the check reads is older than what a HUP has read
        self._said: IO[bytes]  # what it says on standard error
        self._read: IO[bytes]  # what it reads of the configuration

    def wish(self) -> None:
        """Wish for an upgrade, as SIGUSR2 has come; another wish during one changes nothing."""
        if self.state is State.IDLE:
            self.state, self.error = State.WANTED, ""

    def advance(self, now: float) -> None:
        """Begin the check when the pool is calm; end one that takes too long."""
        if self.state is State.WANTED and self._pool.calm:
            LOGGER.info("upgrade: checking the new program")
            self.state, self._outdated = State.CHECKING, False
            self._deadline = now + self._patience
            try:
                self._said, self._read = open_memory(), open_memory()
                self._child = spawn.fork(self._check)
            except OSError as error:
                self._fail(f"no process for the check: {error.strerror}")
        elif self.state is State.CHECKING and now > self._deadline:
            self.abandon()

    def repeat(self) -> None:
        """Check again, as SIGHUP has come: what a check has read of the configuration before it counts no more."""
        self._outdated = True
        if self.state is State.DUE:
            self._again()

    def abandon(self) -> None:
        """Kill the check, if one runs."""
        if self.state is State.CHECKING:
            os.kill(self._child, signal.SIGKILL)

    def ended(self, pid: int, code: int) -> bool:
        """Take note of a child that has been reaped; whether it was the check."""
        if self.state is not State.CHECKING or pid != self._child:
            return False
        if code == 0 and not self._outdated:
            self.state = State.DUE
        elif code == 0:
            self._again()
        else:
            self._refuse(f"the new program does not load ({_cause(code, self._patience)}){self._last_words()}")
        self._said.close()
        return True

    def conclude(self) -> None:
        """Become the next image when that is due, once pre_exec has agreed; returns when it is not, or fails."""
        # Not while a child has closed its channel and is not reaped: the next image would not know of it
        heard = self._resources.channels.keys() >= self._pool.children.keys()
        if self.state is State.DUE and self._pool.calm and heard and not self._asked:
            self._asked = True
            self._hooks.call("pre_exec", then=self._carry_out)

    def _carry_out(self, well: bool) -> None:
        """pre_exec has run, and all went `well` or not. When the exec fails, all is as it was; signals that came
        meanwhile wait for whoever is next to take them."""
        self._asked = False
        if self.state is not State.DUE:
            return  # a HUP has come meanwhile: it is checked again, and pre_exec is asked again
        if not well:
            self._refuse("pre_exec has failed")
            return
        inherited = self._resources.inheritance(self._pool, self._regimes.serving, self._arguments, self.cwd)
        serving = sum(not worker.template for worker in inherited.workers)
        LOGGER.info("upgrade: replacing the arbiter's program, %d workers serve on", serving)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, spawn.MANAGED)
        self._resources.signals.hand_on()
        try:
            succession.exec_successor(inherited, self._read.fileno())
        except OSError as error:
            self._resources.signals.install()
            self._refuse(error.strerror or str(error))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _refuse(self, reason: str) -> None:
        """Call the upgrade off after its check, for `reason`."""
        self._read.close()
        self._fail(reason)

    def _again(self) -> None:
        self._read.close()
        self.state = State.WANTED

    def _fail(self, reason: str) -> None:
        self.state, self.error = State.IDLE, reason
        LOGGER.error("upgrade is off, all serve on as before: %s", reason)

    def _last_words(self) -> str:
        size = os.fstat(self._said.fileno()).st_size
        said = os.pread(self._said.fileno(), SAID_MOST, max(0, size - SAID_MOST)).decode("utf-8", "replace").strip()
        return f":\n{said}" if said else ""

    def _check(self) -> int:
        os.dup2(self._said.fileno(), 2)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, spawn.MANAGED)
        succession.change_directory(self.cwd)
        read_fd = self._read.fileno()
        os.set_inheritable(read_fd, True)
        told = {succession.CHECK: str(succession.VERSION), succession.READ: str(read_fd), "PWD": self.cwd}
        if not any(self._resources.auxiliaries.listeners):
            told[succession.UNWATCHED] = "1"
        os.execvpe(self._arguments[0], self._arguments, os.environ | told)


def _arguments(cwd: str) -> list[str]:
    """How to call the program again. By its script alone where the first line of that named the interpreter: behind a
    symlink that leads to another release by then, it names the one of that release's virtual environment."""
    interpreter, *rest = sys.orig_argv
    with suppress(OSError, IndexError):
        script = os.path.join(cwd, rest[0])
        with open(script, "rb") as file:
            named = file.readline(LINE_MOST).rstrip() == b"#!" + os.fsencode(interpreter)
        if named and os.access(script, os.X_OK):
            return [script, *rest[1:]]
    return [sys.executable, *rest]


def _cause(code: int, patience: float) -> str:
    if code == -signal.SIGKILL:
        return f"it took longer than {patience:g} s, or was killed"
    return f"exit code {code}" if code > 0 else name_signal(-code)
