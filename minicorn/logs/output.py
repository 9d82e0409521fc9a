"""Where lines of logs go: a file or a standard stream, never blocking.

A stalled reader of our standard error must stop neither arbiter nor worker: a line that cannot
be written waits in a small buffer, and beyond that is lost and counted; nor must a FIFO that
nobody reads, or a full disk. O_NONBLOCK is never set on the inherited descriptor, which the shell
shares: it is opened anew.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from minicorn.errors import ConfigError
from minicorn.logs.formats import render_json
from minicorn.logs.logger import LOGGER
from minicorn.typed import Protocol

_PENDING_MOST = 65536
# Taken for the streams themselves: by these names they cannot be opened where they are sockets, as the journal's are
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}
# A full disk: the rest of a line is kept, to be written once there is room
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Seconds between looks whether a log file has been rotated without a signal
LOOK_EVERY = 1.0


class Output:
    """Where log lines go: `path`, or "-" for the stream `standard_fd`.

    `write` makes one system call a line and never waits. A file that has been moved away or
    removed is followed: at once by `reopen`, by itself with the first line a second later. One
    that is somebody else's (`give`) is made anew by whoever may, the arbiter, within a second.
    """

    def __init__(self, path: str, standard_fd: int, json: bool = False) -> None:
        """`json`: what it says itself is an object in a line too."""
        self.path = None if path == "-" or path in _STANDARD else os.path.abspath(path)
        self._standard_fd = _STANDARD.get(path, standard_fd)
        self._json = json
        self._also: tuple[int, ...] = ()
        self._give: Callable[[int], None] | None = None
        self._look_at = 0.0
        self._complained = False
        self._pending = bytearray()
        self._obstacle = ""  # why lines had to wait of late
        self.lost = 0
        self._send = self._open()

    def _open(self) -> Callable[[bytes], int]:
        if self.path is None:
            return _open_stream(self._standard_fd)
        self._fd = _open_file(self.path)
        return partial(os.write, self._fd)

    def errors(self) -> io.TextIOWrapper | None:
        """Make `wsgi.errors` for an application, by PEP 3333 the server's log; None for standard error, where the log
        goes there, or is one of JSON objects, which the application's texts are not."""
        if self.path is None or self._json:
            return None
        return io.TextIOWrapper(Errors(self), "utf-8", "backslashreplace", write_through=True)  # type: ignore[arg-type]

    def write(self, line: bytes) -> None:
        """Write a line, its end included, or keep it, or lose and count it."""
        if self.path is not None and time.monotonic() >= self._look_at:
            self._follow()
        if self._pending:
            self.flush()
        if not self._pending:
            try:
                sent = self._send(line)
            except OSError as error:
                sent = self._forgo(line, error)
            if sent == len(line):
                return
            line = line[sent:]
        if len(self._pending) + len(line) > _PENDING_MOST:
            self.lost += 1
        else:
            self._pending += line

    def flush(self) -> None:
        """Write what waits; then say how much was lost. The arbiter comes here each second."""
        if self._give is not None and time.monotonic() >= self._look_at:
            self._follow()
        data = bytes(self._pending)
        try:
            del self._pending[: self._send(data)]
        except OSError as error:
            del self._pending[: self._forgo(data, error)]
        if self.lost and not self._pending:
            note = f"{self.lost} log lines were lost: {self._obstacle}"
            self.lost = 0
            line = render_json(time.time(), logging.WARNING, note) if self._json else f"WARNING:  {note}"
            self.write(f"{line}\n".encode())

    def _forgo(self, data: bytes, error: OSError) -> int:
        """How many bytes of `data`, which could not be written, need not be kept."""
        if isinstance(error, BlockingIOError):
            self._obstacle = "nobody read them in time"
        elif error.errno in _FULL:
            self._obstacle = "there was no room for them"
        else:
            return len(data)  # it is closed, and there is nowhere to complain
        return 0

    def give(self, give: Callable[[int], None]) -> None:
        """Let the file be somebody else's from now on, whoever opens it again; `give` makes that of a descriptor so."""
        if self.path is None:
            return
        self._give = give
        if not os.path.islink(self.path):
            give(self._fd)

    def reopen(self) -> None:
        """Open the file again by its name, after a rotation; an error leaves the old one."""
        if self.path is None:
            return
        try:
            self._renew()
        except ConfigError as error:
            if not self._complained:
                self._complained = True
                LOGGER.error("%s", error)
        else:
            self._complained = False

    def _renew(self) -> None:
        assert self.path is not None
        # Its new owner may write to its directory: a link left there must not lead root astray
        new = _open_file(self.path, os.O_NOFOLLOW if self._give else 0)
        try:
            if self._give is not None and os.geteuid() == 0:
                self._give(new)
            # Replaced in one step, under the same number: another thread may be about to write
            os.dup2(new, self._fd, inheritable=False)
        except OSError as error:
            raise ConfigError(f"cannot give the log file {self.path} to --user: {error.strerror}") from error
        finally:
            os.close(new)
        self.take_in(self._also)

    def take_in(self, fds: tuple[int, ...]) -> None:
        """Lead standard streams to where the lines go."""
        self._also = fds
        for fd in fds:
            if fd != self._standard_fd or self.path is not None:
                os.dup2(self._standard_fd if self.path is None else self._fd, fd)

    def _follow(self) -> None:
        """Look whether our file is still the one of its name; at most once a second."""
        self._look_at = time.monotonic() + LOOK_EVERY
        assert self.path is not None
        try:
            moved = not os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except FileNotFoundError:
            moved = True
        except OSError:
            moved = False  # we may not look there any more
        if moved and self._give is not None and os.geteuid() != 0:
            with suppress(ConfigError):  # the arbiter has not made it yet, or given
                self._renew()
        elif moved:
            self.reopen()


def _open_file(path: str, more_flags: int = 0) -> int:
    flags = os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | more_flags
    try:
        try:
            return os.open(path, os.O_WRONLY | flags, 0o644)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return os.open(path, os.O_RDWR | flags, 0o644)  # a FIFO that nobody reads yet
    except OSError as error:
        raise ConfigError(f"cannot write the log file {path}: {error.strerror}") from error


def _open_stream(fd: int) -> Callable[[bytes], int]:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return len  # closed before we were started: every line counts as written
    if stat.S_ISSOCK(mode):  # the journal
        stream = socket.socket(fileno=os.dup(fd))
        return lambda data: stream.send(data, socket.MSG_DONTWAIT)
    if stat.S_ISREG(mode):  # opened anew it would have a place of its own, and overwrite what print() writes
        return partial(os.write, os.dup(fd))
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        own = os.open(f"/dev/fd/{fd}", flags)
    except OSError:
        own = os.dup(fd)  # another user's terminal (su): it may block
    return partial(os.write, own)


class Errors(io.RawIOBase):
    """What an application writes to `wsgi.errors`, which goes to `output` as it is."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._output.write(bytes(data))
        return len(data)


class Sink(Protocol):
    """Where lines can go: as `Output` has it."""

    def write(self, line: bytes) -> None: ...

    def flush(self) -> None: ...

    def reopen(self) -> None: ...

    def give(self, give: Callable[[int], None]) -> None: ...
