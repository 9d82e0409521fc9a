"""The error log: the seed's look, coloured on a terminal, plain elsewhere, never blocking.

A stalled reader of our standard error must stop neither arbiter nor worker: a line that cannot
be written waits in a small buffer, and beyond that is lost and counted. O_NONBLOCK is never
set on the inherited descriptor, which the shell shares: it is opened anew.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from minicorn.errors import ConfigError
from minicorn.logs.logger import LOGGER, name_of, tell
from minicorn.system.systemd import is_journal
from minicorn.typed import Protocol

_PENDING_MOST = 65536
# Seconds between looks whether a log file has been rotated without a signal
LOOK_EVERY = 1.0
# OpenTelemetry, Logs Data Model, SeverityNumber
_SEVERITIES = {logging.DEBUG: 5, logging.INFO: 9, logging.WARNING: 13, logging.ERROR: 17, logging.CRITICAL: 21}
_COLOURS = {"DEBUG": 36, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 31}
# syslog(3)'s, which the journal reads off the start of a line (sd-daemon(3))
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class Output:
    """Where log lines go: `path`, or "-" for the stream `standard_fd`.

    `write` makes one system call a line and never waits. A file that has been moved away or
    removed is followed: at once by `reopen`, by itself with the first line a second later. One
    that is somebody else's (`give`) is made anew by whoever may, the arbiter, within a second.
    """

    def __init__(self, path: str, standard_fd: int, json: bool = False) -> None:
        """`json`: what it says itself is an object in a line too."""
        self.path = None if path == "-" else os.path.abspath(path)
        self._standard_fd = standard_fd
        self._json = json
        self._also: tuple[int, ...] = ()
        self._give: Callable[[int], None] | None = None
        self._look_at = 0.0
        self._complained = False
        self._pending = bytearray()
        self.lost = 0
        self._send = self._open()

    def _open(self) -> Callable[[bytes], int]:
        if self.path is None:
            return _open_stream(self._standard_fd)
        self._fd = _open_file(self.path)
        return partial(os.write, self._fd)

    def write(self, line: bytes) -> None:
        if self.path is not None and time.monotonic() >= self._look_at:
            self._follow()
        if self._pending:
            self.flush()
        if not self._pending:
            try:
                sent = self._send(line)
            except OSError as error:
                sent = _taken(line, error)
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
            del self._pending[: _taken(data, error)]
        if self.lost and not self._pending:
            note = f"{self.lost} log lines were lost: nobody read them in time"
            self.lost = 0
            line = render_json(time.time(), logging.WARNING, note) if self._json else f"WARNING:  {note}"
            self.write(f"{line}\n".encode())

    def give(self, give: Callable[[int], None]) -> None:
        """The file is to be somebody else's from now on, whoever opens it again; `give` makes it so."""
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
        # Whom it is given to may write to its directory: a link they leave there must not lead root astray
        new = _open_file(self.path, os.O_NOFOLLOW if self._give else 0)
        try:
            if self._give is not None and os.geteuid() == 0:
                self._give(new)
            # In one step and under the same number: another thread may be about to write
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


def _taken(data: bytes, error: OSError) -> int:
    """How much of it need not be kept: all, where it is closed or full, since there is nowhere to complain."""
    return 0 if isinstance(error, BlockingIOError) else len(data)


def _open_file(path: str, more_flags: int = 0) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | more_flags, 0o644)
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


class Sink(Protocol):
    """Where lines can go."""

    def write(self, line: bytes) -> None: ...

    def flush(self) -> None: ...

    def reopen(self) -> None: ...

    def give(self, give: Callable[[int], None]) -> None: ...


class OwnHandler(logging.Handler):
    """Records to an output of ours."""

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
            if record.levelno >= logging.ERROR and "\n" in text:  # of a traceback, what is looked for first
                before, _, last = text.rpartition("\n")
                text = f"{before}\n\033[{_COLOURS['ERROR']}m{last}\033[0m"
            level = f"\033[{_COLOURS.get(record.levelname, 0)}m{record.levelname}\033[0m:"
        if self._dated:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(record.created))
            return f"{stamp} [{record.process}] {level}{gap}{text}"
        if self._journal:  # each line is a record there
            priority = f"<{_PRIORITIES.get(record.levelname, 6)}>"
            return "\n".join(f"{priority}{line}" for line in f"{level}{gap}{text}".split("\n"))
        return f"{level}{gap}{text}"


class _JsonFormatter(logging.Formatter):
    """One object in one line, under the names of OpenTelemetry's log model."""

    def format(self, record: logging.LogRecord) -> str:
        attributes: dict[str, object] = {"process.pid": record.process, **getattr(record, "attributes", {})}
        if record.exc_info and record.exc_info[0] is not None:
            attributes["exception.type"] = record.exc_info[0].__name__
            attributes["exception.message"] = str(record.exc_info[1])
            attributes["exception.stacktrace"] = self.formatException(record.exc_info)
        return render_json(record.created, record.levelno, record.getMessage(), attributes)


def render_json(when: float, level: int, text: str, attributes: dict[str, object] | None = None) -> str:
    """A record as JSON, without its line end; `when` in seconds since 1970."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when))
    record = {
        "timestamp": f"{stamp}.{int(when % 1 * 1000):03d}Z",
        "severity_text": logging.getLevelName(level),
        "severity_number": _SEVERITIES.get(level, 9),
        "body": text,
        **(attributes or {}),
    }
    return json.dumps(record, default=str)


def set_up(path: str, level: str, format: str = "text") -> Output:
    """Send the logger "minicorn" to `path` ("-": standard error) from `level` on, as `format` ("text", "json")."""
    output = Output(path, 2, json=format == "json")
    terminal = path == "-" and sys.stderr is not None and os.isatty(2)
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for handler in LOGGER.handlers[:]:
        LOGGER.removeHandler(handler)
    plain = _Formatter(colour, dated=path != "-", journal=path == "-" and is_journal(2))
    LOGGER.addHandler(OwnHandler(output, _JsonFormatter() if format == "json" else plain))
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    # Where gunicorn's users find its handlers and level, to lead their application's log there too
    logging.root.manager.loggerDict["gunicorn.error"] = LOGGER
    return output


def reopen_handlers() -> None:
    """Open the files of the logging package's handlers again, after a rotation."""
    loggers = [logging.root, *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    for handler in [handler for logger in loggers for handler in logger.handlers]:
        if isinstance(handler, logging.FileHandler):
            try:
                handler.close()  # it opens again with the next record
            except Exception as error:
                tell(f"log handler {name_of(handler)}", error)
