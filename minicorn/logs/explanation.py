"""What is logged of an error: one line for a known mistake, else its traceback from the application on.

Our own frames, which have called the application, and those of the import system tell nobody where to look.
"""

from __future__ import annotations

import importlib
import os
import traceback
from types import TracebackType

from minicorn.errors import AppLoadError, ConfigError
from minicorn.logs.tracebacks import format_traceback


def explain(error: BaseException) -> str:
    """The text to log of an error: one line for a known mistake, else the traceback from the application on."""
    if isinstance(error, (AppLoadError, ConfigError)):
        return str(error).strip() or type(error).__name__
    error.__traceback__ = _outside(error.__traceback__)
    return format_traceback(error)


def find_place(error: BaseException) -> str:
    """Where the project's own code was last as it led to `error`, for the end of a line; "" where none of it did."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if not _is_ours(code.co_filename) and "-packages/" not in code.co_filename:
            place = f" ({code.co_filename}:{line}, in {code.co_name})"
    return place


def _is_ours(filename: str) -> bool:
    """Whether it is our code, or the import system, that is under way there."""
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    return filename != ours + "demo.py" and (
        filename.startswith((ours, "<frozen importlib")) or filename == importlib.__file__
    )


def _outside(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the application's first frame on; all of it when it has none."""
    frame = frames
    while frame is not None:
        if not _is_ours(frame.tb_frame.f_code.co_filename):
            return frame
        frame = frame.tb_next
    # A SyntaxError has no frame of its own: its lines tell where
    return None
