"""Fork: signals blocked, flush, fork; in the child reset, run, `os._exit`.

TERM sent right after a plain fork is lost (CPython clears what was tripped in a new child).
Here the signals stay blocked until the child's own handlers stand. The child never unwinds
into the parent's frames: no `finally`, no atexit, no buffer of the parent's runs twice.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from minicorn.system import signals, terminal
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn

MANAGED = frozenset(signals.URGENCY)
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
# The base class of all file objects, whether written in C or in Python
_FILE = io.IOBase.__mro__[1]


def fork(run: Callable[[], int], heir: bool = False) -> int:
    """Fork a child that does `run()` and ends with its exit code; the child's pid.

    `heir`: the exit functions of the parent, which is a template, are the child's as well.
    `run` starts with the signals of `MANAGED` blocked and with their default dispositions.
    Raises OSError when the system has no process to give (EAGAIN, ENOMEM).
    """
    flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, MANAGED)
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(run, heir)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_child(run: Callable[[], int], heir: bool) -> None:
    code = 70  # EX_SOFTWARE of sysexits.h
    try:
        signals.reset(MANAGED)
        if heir:
            _own_uuids()
            _disown_siblings()
        else:
            atexit._clear()  # the parent's are the parent's to run
        code = run()
    except BaseException:
        traceback.print_exc()
    finally:
        leave(code)


def _own_uuids() -> None:
    """Keep siblings from making one uuid1: libuuid's clock sequence, which is to tell processes apart (RFC 9562
    6.1), is drawn once and outlives a fork. Without libuuid, `uuid` draws one for each."""
    if uuid := sys.modules.get("uuid"):
        uuid._generate_time_safe = None  # type: ignore[attr-defined]


def _disown_siblings() -> None:
    """What multiprocessing has started in the parent are no children of ours, which our end would end."""
    if process := sys.modules.get("multiprocessing.process"):
        process._children = set()  # type: ignore[attr-defined]  # as its own children have it


def end_processes() -> None:
    """End what multiprocessing has started in this process, as the interpreter's end would."""
    if util := sys.modules.get("multiprocessing.util"):
        util._exit_function()


def ignore_terminal() -> None:
    """Let the signals that a terminal sends to all in the foreground, meant for the arbiter, do nothing in a child
    that is no worker; TERM and KILL end it. By a handler and not SIG_IGN, which an exec would keep."""
    for signum in MANAGED - {signal.SIGTERM, signal.SIGCHLD}:
        signal.signal(signum, lambda signum, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, MANAGED)


def lead_group() -> None:
    """Lead a process group of our own, so that what we start can be ended with us."""
    if not terminal.has_foreground():  # there it could not read what a debugger asks for
        os.setpgid(0, 0)


def kill_group(pid: int) -> None:
    """Kill what a child that was killed has started, and left behind in its process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass  # it led no group: it died too early, or runs in the foreground of a terminal


def become_subreaper() -> bool:
    """Make this process adopt the orphans among its descendants; False where the system cannot (it is no Linux)."""
    if sys.platform != "linux":
        return False
    import ctypes  # not needed without a template, and dear

    refused: int = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return not refused


def leave(code: int) -> NoReturn:
    """End the process now: buffers written, nothing else run."""
    try:
        flush()
    finally:
        os._exit(code)


def flush() -> None:
    """Write out what print() has buffered, where there is somebody to read it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # None, closed, without a reader, or the application's own: nothing is lost by going on


def flush_files() -> None:
    """Write out what is buffered in open files: the end of an interpreter does so, and `os._exit` does not."""
    # By type() alone: `isinstance` would ask lazy objects, such as Django's, for their class, and so evaluate them
    opened = [each for each in gc.get_objects() if issubclass(type(each), _FILE)]
    for each in opened * 2:  # one may write into another, as gzip's do
        with suppress(Exception):  # closed, read-only, on a full disk
            each.flush()
