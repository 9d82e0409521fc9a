"""This machine's control groups, for one test at a time, whichever process of pytest's runs it.

A systemd manager that starts takes what runs in its own group into others (version 1), and two managers
give the groups of their units the same names.
"""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO


def take_turn() -> IO[str]:
    """Wait for our turn, which ends when this is closed."""
    lock = Path(tempfile.gettempdir(), f"minicorn-test-groups-{os.getuid()}").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock
