"""The terminal that a foreground process is started from: is there one, is it still there?"""

from __future__ import annotations

import os


def has_foreground() -> bool:
    """Whether we are in the foreground of a controlling terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False  # ENXIO: none, or it has hung up
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def is_lost() -> bool:
    """Whether there is no controlling terminal (any more)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
        return False
    except OSError:
        return True
