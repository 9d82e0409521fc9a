"""How a line of the error log looks: for people, coloured on a terminal; for the journal; or as JSON."""

from __future__ import annotations

import json
import logging
import time

# OpenTelemetry, Logs Data Model, SeverityNumber
_SEVERITIES = {logging.DEBUG: 5, logging.INFO: 9, logging.WARNING: 13, logging.ERROR: 17, logging.CRITICAL: 21}
_COLOURS = {"DEBUG": 36, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 31}
# The priorities of syslog(3), which the journal reads off the start of a line (sd-daemon(3))
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class TextFormatter(logging.Formatter):
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


class JsonFormatter(logging.Formatter):
    """A JSON object a line, under the names of OpenTelemetry's log model."""

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
