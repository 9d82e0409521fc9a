"""Process titles, with setproctitle where it is installed (`minicorn[standard]`)."""

from __future__ import annotations

try:
    from setproctitle import setproctitle as set_title
except ImportError:

    def set_title(title: str) -> None:
        """Without setproctitle the title stays the command line."""


__all__ = ["set_title"]
