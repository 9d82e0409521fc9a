"""The error log: the seed's look, coloured on a terminal, plain elsewhere, never blocking.

A stalled reader of our standard error must stop neither arbiter nor worker: a line that cannot
be written waits in a small buffer, and beyond that is lost and counted. O_NONBLOCK is never
set on the inherited descriptor, which the shell shares: it is opened anew.
"""

import logging
import os
import socket
import stat
import sys
import time
from collections.abc import Callable

from minicorn.errors import ConfigError
from minicorn.systemd import is_journal

LOGGER = logging.getLogger("minicorn")
_PENDING_MOST = 65536
_COLOURS = {"DEBUG": 36, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 31}
# syslog(3)'s, which the journal reads off the start of a line (sd-daemon(3))
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class Output:
    """Where log lines go: `path`, or "-" for the stream `standard_fd`.

    `write` makes one system call a line and never waits; `reopen` follows a rotated file.
    """

    def __init__(self, path: str, standard_fd: int) -> None:
        self.path = None if path == "-" else os.path.abspath(path)
        self._standard_fd = standard_fd
        self._pending = bytearray()
        self.lost = 0
        self._send = self._open()

    def _open(self) -> Callable[[bytes], int]:
        if self.path is None:
            return _open_stream(self._standard_fd)
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"cannot write the log file {self.path}: {error.strerror}") from error
        return lambda data: os.write(self._fd, data)

    def write(self, line: bytes) -> None:
        if self._pending:
            self.flush()
        if not self._pending:
            line = line[self._try(line) :]
        if len(self._pending) + len(line) > _PENDING_MOST:
            self.lost += 1
        else:
            self._pending += line

    def flush(self) -> None:
        """Write what waits; then say how much was lost."""
        del self._pending[: self._try(bytes(self._pending))]
        if self.lost and not self._pending:
            note = f"WARNING:  {self.lost} log lines were lost: nobody read them in time\n"
            self.lost = 0
            self.write(note.encode())

    def _try(self, data: bytes) -> int:
        try:
            return self._send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # closed, or the disk is full: there is nowhere to complain

    def reopen(self) -> None:
        """Open the file again by its name, after a rotation; an error leaves the old one."""
        if self.path is not None:
            old = self._fd
            try:
                self._send = self._open()
            except ConfigError as error:
                LOGGER.error("%s", error)
            else:
                os.close(old)


def _open_stream(fd: int) -> Callable[[bytes], int]:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return len  # closed before we were started: every line counts as written
    if stat.S_ISSOCK(mode):  # the journal
        stream = socket.socket(fileno=os.dup(fd))
        return lambda data: stream.send(data, socket.MSG_DONTWAIT)
    if stat.S_ISREG(mode):  # opened anew it would have a place of its own, and overwrite what print() writes
        return lambda data: os.write(fd, data)
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        own = os.open(f"/dev/fd/{fd}", flags)
    except OSError:
        own = fd  # another user's terminal (su): it may block
    return lambda data: os.write(own, data)


class _Handler(logging.Handler):
    def __init__(self, output: Output, formatter: logging.Formatter) -> None:
        super().__init__()
        self.output = output
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        self.output.write((self.format(record) + "\n").encode("utf-8", "backslashreplace"))


class _Formatter(logging.Formatter):
    """`INFO:     text`; in a file, with the time and the process in front; for the journal, with priorities."""

    def __init__(self, colour: bool, dated: bool, journal: bool) -> None:
        super().__init__()
        self._colour = colour
        self._dated = dated
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        level = f"{record.levelname}:"
        gap = " " * max(1, 10 - len(level))
        if self._colour:
            level = f"\033[{_COLOURS.get(record.levelname, 0)}m{record.levelname}\033[0m:"
        if self._dated:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(record.created))
            return f"{stamp} [{record.process}] {level}{gap}{text}"
        if self._journal:  # each line is a record there
            priority = f"<{_PRIORITIES.get(record.levelname, 6)}>"
            return "\n".join(f"{priority}{line}" for line in f"{level}{gap}{text}".split("\n"))
        return f"{level}{gap}{text}"


def set_up(path: str, level: str) -> Output:
    """Send the logger "minicorn" to `path` ("-": standard error) from `level` on."""
    output = Output(path, 2)
    terminal = path == "-" and sys.stderr is not None and os.isatty(2)
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for handler in LOGGER.handlers[:]:
        LOGGER.removeHandler(handler)
    LOGGER.addHandler(_Handler(output, _Formatter(colour, dated=path != "-", journal=path == "-" and is_journal(2))))
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    return output
