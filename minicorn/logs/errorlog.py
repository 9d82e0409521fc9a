"""The error log: the logger "minicorn" is led to an output of ours, in a format that suits whoever reads there."""

from __future__ import annotations

import logging
import os
import sys

from minicorn.logs.formats import JsonFormatter, TextFormatter
from minicorn.logs.logger import LOGGER, name_of, report
from minicorn.logs.output import Output
from minicorn.system.systemd import is_journal


class OwnHandler(logging.Handler):
    """Writes records to an output of ours."""

    def __init__(self, output: Output, formatter: logging.Formatter) -> None:
        super().__init__()
        self.output = output
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        self.output.write((self.format(record) + "\n").encode("utf-8", "backslashreplace"))


def set_up(path: str, level: str, format: str) -> Output:
    """Send the logger "minicorn" to `path` ("-": standard error) from `level` on, as `format` ("text", "json")."""
    output = Output(path, 2, json=format == "json")
    terminal = path == "-" and sys.stderr is not None and os.isatty(2)
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for handler in LOGGER.handlers[:]:
        LOGGER.removeHandler(handler)
    plain = TextFormatter(colour, dated=path != "-", journal=path == "-" and is_journal(2))
    LOGGER.addHandler(OwnHandler(output, JsonFormatter() if format == "json" else plain))
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
                report(f"log handler {name_of(handler)}", error)
