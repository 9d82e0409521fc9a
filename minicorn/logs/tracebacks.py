"""An exception as text. To format one may raise, too, and then it is told with less.

Python 3.15 imports the package of a module that was not found, to say more of why; what that
import raises would pass, in place of the traceback.
"""

from __future__ import annotations

import traceback


def format_traceback(error: BaseException) -> str:
    """The traceback of an error, as Python prints it, without the last line's end."""
    try:
        lines = traceback.format_exception(error)
    except Exception:
        lines = [*traceback.format_tb(error.__traceback__), _describe(error)]
    return "".join(lines).rstrip()


def format_headline(error: BaseException) -> str:
    """The end of its traceback, which names the exception, in one line."""
    try:
        lines = traceback.format_exception_only(error)
    except Exception:
        lines = [_describe(error)]
    return " ".join(lines[-1].split())


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__
