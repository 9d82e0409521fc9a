"""The last errors that this process has logged, each in a line or two, for whoever looks from outside."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise

from minicorn.logs.logger import LOGGER


class _Handler(logging.Handler):
    def __init__(self, keep: Callable[[str, float], object]) -> None:
        super().__init__(logging.ERROR)
        self._keep = keep

    def emit(self, record: logging.LogRecord) -> None:
        lines = record.getMessage().splitlines() or [""]
        self._keep(lines[0] if len(lines) == 1 else f"{lines[0]} … {_gist(lines)}", record.created)


def _gist(lines: list[str]) -> str:
    """The line that says most: the last of a traceback names the exception, the first of a stack what runs."""
    for head, innermost in pairwise(lines):
        if head.startswith("Current thread "):
            return innermost.strip()
    return lines[-1].strip()


def handlers() -> list[logging.Handler]:
    """The handlers that `collect` has added, for whoever sets up the others anew."""
    return [handler for handler in LOGGER.handlers if isinstance(handler, _Handler)]


def collect(keep: Callable[[str, float], object]) -> None:
    """Call `keep` with the text and the time (since the epoch) of each error that is logged from now on."""
    for handler in LOGGER.handlers[:]:
        if isinstance(handler, _Handler):  # of the process that has forked this one
            LOGGER.removeHandler(handler)
    LOGGER.addHandler(_Handler(keep))
