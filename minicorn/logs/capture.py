"""What the application prints becomes records of the error log: a line each, in its format.

`print` and whatever else goes through sys.stdout and sys.stderr is caught in Python; what C code
or a subprocess writes goes to where the error log goes, as it is.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Iterable

from minicorn.logs.logger import LOGGER
from minicorn.logs.output import Output
from minicorn.system import spawn

# Characters after which a text without a line end is logged as a line
_LINE_MOST = 16384


class Printed(io.RawIOBase):
    """A stream whose lines are records of `level`, whatever level is logged: they were asked for."""

    def __init__(self, level: int, fd: int) -> None:
        """`fd`: where the stream would lead."""
        self._level = level
        self._fd = fd
        self._rest = b""
        self._lock = threading.RLock()
        self._logging = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: bytes) -> int:  # type: ignore[override]
        with self._lock:
            if self._logging:  # a log handler complains of its own failure
                return os.write(self._fd, data)
            *lines, self._rest = (self._rest + bytes(data)).split(b"\n")
            if len(self._rest) > _LINE_MOST:
                lines.append(self._rest)
                self._rest = b""
            self._log(lines)
        return len(data)

    def flush(self) -> None:
        """Log what has no line end yet, before it is lost."""
        with self._lock:
            rest, self._rest = self._rest, b""
            if rest and not self._logging:
                self._log([rest])

    def _log(self, lines: Iterable[bytes]) -> None:
        self._logging = True
        try:
            for line in lines:
                text = line.decode("utf-8", "backslashreplace").rstrip("\r")
                LOGGER.handle(LOGGER.makeRecord(LOGGER.name, self._level, "", 0, "%s", (text,), None))
        finally:
            self._logging = False


def capture(output: Output) -> None:
    """Lead this process's standard output and standard error to the error log, which is `output`, from now on."""
    spawn.flush()
    output.take_in((1, 2))
    sys.stdout = _stream(logging.INFO, 1)
    sys.stderr = _stream(logging.WARNING, 2)


def _stream(level: int, fd: int) -> io.TextIOWrapper:
    raw = Printed(level, fd)
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)  # type: ignore[arg-type]
