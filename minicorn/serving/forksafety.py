"""What an application has left that a fork breaks, or shares where nobody wants it: told, not guessed.

Threads stay behind in the template, and a lock that one of them held is held for ever. Sockets,
database connections and files are the same ones in every worker: two of them talk over one line,
or move each other's place in a file. Nothing is closed here. Where a thread or a socket came from
is noted as it is made, while the import is watched; for files the variable that holds them is
looked for. Files that are only appended to, as logs are, are safe and not told.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import io
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from functools import wraps
from types import FrameType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

_STANDARD = os.path.dirname(os.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_HARMLESS = ("/dev/", "/proc/", "/sys/", "/memfd:", "anon_inode:[eventfd]", "anon_inode:inotify")
_SQLITE = b"SQLite format 3\0"
# The standard library's own classes: the application may put others in their place (gevent)
_MADE_BY = ((threading.Thread, "start"), (socket.socket, "__init__"))
# Steps from a file to the module that holds it: file, buffer, text, object, its attributes, module
_REACH = 6
# Seconds until a thread that has ended for Python has ended for the system as well
_ENDING = 0.1


class Watch:
    """Finds what the application has left running and open since this was made."""

    def __init__(self) -> None:
        self._origins: WeakKeyDictionary[object, str] = WeakKeyDictionary()
        self._before = set(_descriptors())
        self._watching = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note where threads and sockets are made; for the import alone, since it costs a little each time."""
        watched = [(kind, name, getattr(kind, name)) for kind, name in _MADE_BY]
        noting = [self._noting(function) for _, _, function in watched]
        for (kind, name, _), note in zip(watched, noting, strict=True):
            setattr(kind, name, note)
        self._watching = True
        try:
            yield
        finally:
            self._watching = False
            for (kind, name, function), note in zip(watched, noting, strict=True):
                if getattr(kind, name) is note:  # else what it has imported (Sentry) has wrapped it, and stays
                    setattr(kind, name, function)

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def note(made: object, *args: object, **named: object) -> object:
            if self._watching:
                self._origins[made] = _caller(sys._getframe(1))
            return function(made, *args, **named)

        return note

    def findings(self) -> list[str]:
        """A sentence for each thing that a template should not have, with what to do about it."""
        alone = "in the template: it does not live on in workers; start it in post_fork, or when it is first needed"
        shared = "in the template, and shared by all workers: open it in post_fork, or lazily"
        threads = [f"{each} runs {alone}" for each in self.threads()]
        return threads + [f"{each} is open {shared}" for each in self.descriptors()]

    def threads(self) -> Iterator[str]:
        """The threads besides the main one, each with where it was started if that was watched."""
        living = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        for thread in living:
            yield f"thread {thread.name!r}{_from(self._origins.get(thread, ''))}"
        for number in range(1, _count_tasks(1 + len(living)) - len(living)):
            yield f"thread {number} of C code"

    def descriptors(self, ours: Collection[int] = ()) -> Iterator[str]:
        """Sockets, databases, files, ... that were opened, but for `ours`, each with who holds it."""
        before = {*self._before, *ours}
        new = {fd: link for fd, link in _descriptors().items() if fd not in before}
        told = {fd: what for fd, link in new.items() if (what := _describe(fd, link))}
        holders = _find_holders(set(told))
        for fd, what in told.items():
            holder = holders.get(fd)
            where = _from(self._origins.get(holder, "")) if holder is not None else ""
            if holder is not None and not where and (name := _find_name(holder)):
                where = f" (held by {name})"
            yield f"{what}{where}"


def _from(origin: str) -> str:
    return f" ({origin})" if origin else ""


def _caller(frame: FrameType | None) -> str:
    """File and line of the nearest frame that is neither Python's own nor ours."""
    while frame is not None:
        name = frame.f_code.co_filename
        standard = name.startswith(_STANDARD) and "site-packages" not in name
        if not (standard or name.startswith((_OURS, "<frozen"))):
            return f"{os.path.relpath(name)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _descriptors() -> dict[int, str]:
    """By open descriptor, what it leads to; empty where the system does not tell."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # that of this very look
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def _count_tasks(expected: int) -> int:
    """How many threads the system sees; one that has been joined is seen for a moment longer."""
    deadline = time.monotonic() + _ENDING
    try:
        while (count := len(os.listdir("/proc/self/task"))) > expected and time.monotonic() < deadline:
            time.sleep(0.001)
        return count
    except OSError:
        return 0


def _describe(fd: int, link: str) -> str:
    """Describe an open descriptor; "" if it is harmless."""
    if link.startswith("socket:"):
        return _describe_socket(fd)
    if link == "anon_inode:[eventpoll]":
        return "an event loop"
    if link.startswith("pipe:"):
        return "a pipe"
    if link.startswith(_HARMLESS) or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
        return ""
    kind = "database" if _is_database(fd) else "file"
    return f"{kind} {link}"


def _is_database(fd: int) -> bool:
    try:
        return os.pread(fd, len(_SQLITE), 0) == _SQLITE
    except OSError:
        return False


def _describe_socket(fd: int) -> str:
    with socket.socket(fileno=os.dup(fd)) as sock:
        for word, name in (("to", sock.getpeername), ("on", sock.getsockname)):
            with contextlib.suppress(OSError):
                address = name()
                if isinstance(address, tuple):
                    return f"a socket {word} {address[0]}:{address[1]}"
                if address:
                    return f"a socket {word} {os.fsdecode(address)}"
    return "a socket"


def _find_holders(fds: set[int]) -> dict[int, object]:
    """The Python objects that own these descriptors, where any does."""
    holders: dict[int, object] = {}
    for each in gc.get_objects() if fds else ():
        if isinstance(each, (socket.socket, io.FileIO)) and not _is_closed(each) and each.fileno() in fds:
            holders[each.fileno()] = each
    return holders


def _is_closed(each: socket.socket | io.FileIO) -> bool:
    return each.fileno() < 0 if isinstance(each, socket.socket) else each.closed


def _find_name(held: object) -> str:
    """The module, and the variable in it, by which something is reached; "" if it is further than that."""
    seen, layer = {id(held)}, [held]
    for _ in range(_REACH):
        above: list[object] = []
        for each in gc.get_referrers(*layer):
            if isinstance(each, FrameType) or each is layer or id(each) in seen:
                continue
            seen.add(id(each))
            module = sys.modules.get(str(each.get("__name__"))) if isinstance(each, dict) else None
            if isinstance(module, ModuleType) and vars(module) is each:
                names = (name for name, value in vars(module).items() if any(value is below for below in layer))
                return f"{module.__name__}.{next(names, '')}".rstrip(".")
            above.append(each)
        layer = above
    return ""
