"""An exception as a value to show: what, where, and the source lines around each frame.

Read when it is raised: by the time that somebody looks, the file may have been edited again.
"""

from __future__ import annotations

import linecache
import os
import traceback

from minicorn.errors import AppLoadError
from minicorn.http.reply import ApplicationFault
from minicorn.logs.explanation import explain, find_place
from minicorn.logs.tracebacks import format_headline
from minicorn.reload.imports import is_installed
from minicorn.reload.page import Failure, Frame

# Lines shown before and after the one that failed; most frames shown
AROUND = 5
FRAMES_MOST = 60
HEADLINE_MOST = 500  # characters: a database's error has its whole statement in it


def from_exception(doing: str, error: BaseException) -> Failure:
    """The failure that `error` is; `doing`: what was going on, such as "GET /" or "importing main:app"."""
    text = explain(error)
    headline = format_headline(error)
    if isinstance(error, AppLoadError):  # whose type is ours, and says nothing more
        headline = str(error)
    elif isinstance(error, ApplicationFault):
        headline = f"The application broke WSGI: {error}"
        text = headline + find_place(error)
    headline = headline[:HEADLINE_MOST] + "…" * (len(headline) > HEADLINE_MOST)
    found = [_frame(each.filename, each.lineno, each.name) for each in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        found.append(_frame(error.filename, error.lineno, ""))
    return Failure(doing, headline, text, tuple(reversed(found[-FRAMES_MOST:])))


def _frame(path: str, line: int | None, function: str) -> Frame:
    number = line or 1
    linecache.checkcache(path)
    source = linecache.getlines(path)
    first = max(1, number - AROUND)
    lines = tuple(enumerate((each.rstrip("\n") for each in source[first - 1 : number + AROUND]), first))
    own = not (path.startswith("<") or is_installed(path))
    return Frame(_shorten(path) if own else path, number, "" if function == "<module>" else function, lines, own)


def _shorten(path: str) -> str:
    try:
        here = os.getcwd() + os.sep
    except FileNotFoundError:  # it has been removed, as code was that still runs
        return path
    return path.removeprefix(here)
