"""Our loggers, which neither a configuration of the application's nor a handler that breaks can take away.

What serves logs between the application's calls, where an exception would end the worker with all its
connections. So whatever a handler, a filter or a record factory raises is told on standard error, in a
line now and then, and whoever has logged goes on; and so do the other handlers.
"""

from __future__ import annotations

import logging
import os
import select
import time
from contextlib import suppress

from minicorn.logs.tracebacks import format_headline
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# Seconds until the same failure is reported again
_TELL_EVERY = 60.0
_LINE_MOST = 2048
_told: dict[str, float] = {}


class OurLogger(logging.Logger):
    """A logger that raises nothing and that nothing switches off as a side effect."""

    @property
    def disabled(self) -> bool:
        """Never: dictConfig and fileConfig disable each logger that they do not know, unless told not to."""
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass

    def makeRecord(self, *args: Any, **more: Any) -> logging.LogRecord:  # noqa: N802
        try:
            return super().makeRecord(*args, **more)
        except Exception as error:
            report("the log record factory", error)
            return logging.LogRecord(*args[:8])

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            return super().filter(record)
        except Exception as error:
            report("a log filter", error)
            return True

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not self.hasHandlers():
            super().callHandlers(record)  # to the last resort
        logger: logging.Logger | None = self
        while logger is not None:
            for handler in logger.handlers:
                if record.levelno >= handler.level:
                    try:
                        handler.handle(record)
                    except Exception as error:
                        report(f"log handler {name_of(handler)}", error)
            logger = logger.parent if logger.propagate else None


def own(name: str) -> logging.Logger:
    """The logger `name`, as one of ours, whoever has made it."""
    logger = logging.getLogger(name)
    logger.__class__ = OurLogger
    return logger


LOGGER = own("minicorn")


def name_of(handler: logging.Handler) -> str:
    """The name of its class, as a configuration spells it."""
    return f"{type(handler).__module__}.{type(handler).__qualname__}"


def report(what: str, error: BaseException) -> None:
    """Say on standard error what is broken, once a minute; where nobody reads that, it is not said."""
    now = time.monotonic()
    if now < _told.get(what, 0.0):
        return
    _told[what] = now + _TELL_EVERY
    line = f"ERROR:    {what} has failed, which is told once a minute: {format_headline(error)}"[:_LINE_MOST]
    with suppress(OSError):  # it is closed
        if select.select((), (2,), (), 0)[1]:
            os.write(2, f"{line}\n".encode("utf-8", "backslashreplace"))
