"""The groundwork of --reload: modules that are not the project's, imported once for all workers to come.

The first worker tells what its application has imported. A template then imports what of that is
the standard library's or installed, and nothing of the project, so that a reload costs the
project's own imports alone. A module that asks for the project, starts a thread, or cannot be
imported by itself is left to the workers: that is found in a trial child, and remembered.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import site
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from minicorn.logs.logger import LOGGER

# Trials that may kill their process, before nothing is imported at all
TRIALS_MOST = 5
# Seconds that the import of one module may take
IMPORT_MOST = 20


class Groundwork:
    """The modules of one server's groundwork, as its arbiter knows them; templates inherit that by their fork."""

    def __init__(self) -> None:
        self.modules: list[str] = []  # in the order of their import
        self.own: frozenset[str] = frozenset()  # top-level names of the project's modules
        self.refused: dict[str, str] = {}
        self._stamps: list[float] = []  # of the directories of packages, since the first import was told

    def learn(self, modules: list[str], own: list[str]) -> bool:
        """Take up what a worker has imported; whether a template would import more by that than before."""
        self._stamps = self._stamps or _read_stamps()
        more = [name for name in modules if name not in set(self.modules)]
        self.modules += more
        self.own |= set(own)
        return any(name not in self.refused for name in more)

    def is_outdated(self) -> bool:
        """Whether packages have been installed or removed since the last call; what they had told is forgotten then."""
        stamps, self._stamps = self._stamps, _read_stamps()
        outdated = stamps != self._stamps
        if outdated:
            self.modules, self.refused = [], {}
        return outdated

    def lay(self) -> dict[str, str]:
        """Import, in a template, what a trial child could; gives what is refused, with the reasons.

        RuntimeError when that is nothing to build upon.
        """
        refused = dict(self.refused)
        trials = 0
        while name := _try(self, refused):
            refused[name] = "it ends its process"
            trials += 1
            if trials == TRIALS_MOST:
                raise RuntimeError(f"{trials} modules end their process")
        took = [name for name in self.modules if name not in refused]
        for name in took:
            if reason := _import(name, self.own):
                raise RuntimeError(f"{name} could be imported in a trial, and then not: {reason}")
        LOGGER.debug("imported for all workers to come: %s", " ".join(took))
        return refused


def _read_stamps() -> list[float]:
    return [_stamp(path) for path in [*site.getsitepackages(), site.getusersitepackages()]]


def _stamp(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _try(ground: Groundwork, refused: dict[str, str]) -> str:
    """Import everything in a child, on trial, and add to `refused`; gives the module that has killed it, or ""."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _report(ground, refused, theirs)
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as report:
        verdicts = [json.loads(line) for line in report]
    os.waitpid(pid, 0)
    refused.update({name: reason for name, reason in verdicts if reason})
    return str(verdicts[-1][0]) if verdicts and verdicts[-1][1] is None else ""


def _report(ground: Groundwork, refused: dict[str, str], fd: int) -> None:
    """Import all that is not refused; write a line before and after each."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for name in ground.modules:
        reason = refused.get(name, "")
        if not reason:
            os.write(fd, f"{json.dumps([name, None])}\n".encode())
            signal.alarm(IMPORT_MOST)
            reason = _import(name, ground.own)
            signal.alarm(0)
            os.write(fd, f"{json.dumps([name, reason])}\n".encode())
        if reason:
            sys.modules[name] = None  # type: ignore[assignment]  # so what needs it is refused as well


def _import(name: str, own: frozenset[str]) -> str:
    """Import a module without the project; gives why that could not be done, or ""."""
    guard = _Guard(own)
    threads = _count_threads()
    sys.meta_path.insert(0, guard)
    try:
        importlib.import_module(name)
        reason = ""
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
    finally:
        sys.meta_path.remove(guard)
    if guard.asked:
        reason = f"it asks for {guard.asked}"
    elif _count_threads() > threads:
        reason = "it starts a thread"
    return reason


class _Guard:
    """A finder that finds nothing, and says of the project's modules that they are not there."""

    def __init__(self, own: frozenset[str]) -> None:
        self._own = own
        self.asked = ""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self._own:
            self.asked = name
            raise ModuleNotFoundError(f"{name} is left to the workers", name=name)
        return None


def _count_threads() -> int:
    return len(os.listdir("/proc/self/task"))
