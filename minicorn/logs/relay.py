"""Log records from one process to another, which has the handlers for them: the arbiter's to the logger.

From before the logger's start they are kept, a thousand at most; while there is none, after its death,
they go to a handler that is left for that, the error log's own.
"""

from __future__ import annotations

import logging
import os
from collections import deque

from minicorn.logs.logger import LOGGER
from minicorn.typed import Protocol

RECORD = "record"
_EARLY_MOST = 1000


class Line(Protocol):
    """The auxiliary that records go to, as a Relay sees it."""

    strikes: int  # how often it has died, or could not be forked, of late

    @property
    def channel(self) -> object | None:
        """The channel to it, while it lives."""

    def tell(self, word: str, value: object) -> bool:
        """Say `word` to it, if it lives; whether that was taken."""


class Relay(logging.Handler):
    """Sends the arbiter's records to the logger while that lives, else to `fallback`.

    The arbiter never waits: what a stalled logger does not take is lost, counted, and told when it takes again.
    """

    def __init__(self, line: Line, fallback: logging.Handler | None) -> None:
        super().__init__()
        self._line = line
        self._fallback = fallback
        self._pid = os.getpid()
        self._early: deque[dict[str, object]] = deque()  # from before the logger's start
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        ours = os.getpid() == self._pid
        packed = pack(record)
        if ours and self._line.channel is not None:
            while self._early:
                self._tell(self._early.popleft())
            self._tell(packed)
        elif ours and not self._line.strikes and len(self._early) < _EARLY_MOST:
            self._early.append(packed)
        elif self._fallback is not None:
            self._fallback.handle(record)
        else:
            self._lost += 1

    def _tell(self, packed: dict[str, object]) -> None:
        if self._lost:
            note = f"{self._lost} log records were lost: nobody took them in time"
            record = logging.makeLogRecord({"name": LOGGER.name, "levelno": logging.WARNING, "msg": note})
            record.levelname = "WARNING"
            if self._line.tell(RECORD, pack(record)):
                self._lost = 0
        if self._lost or not self._line.tell(RECORD, packed):
            self._lost += 1


def pack(record: logging.LogRecord) -> dict[str, object]:
    """The record as values that `handle` makes it of again, in another process."""
    fields = dict(record.__dict__, msg=record.getMessage(), args=None)
    if record.exc_info:
        fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
        fields["exc_info"] = None
    return fields


def handle(packed: dict[str, object]) -> None:
    """Hand a record that `pack` has taken apart to this process's handlers."""
    record = logging.makeLogRecord(packed)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
