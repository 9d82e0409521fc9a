"""The shell that we may have been started from: one that stands above us swallows our signals."""

from __future__ import annotations

import os
from collections.abc import Sequence

SHELLS = frozenset({"sh", "ash", "bash", "busybox", "dash", "ksh", "zsh"})


def read_command(pid: int) -> list[str]:
    """The command line of a process; empty where the system does not tell."""
    try:
        with open(f"/proc/{pid}/cmdline", errors="replace") as file:
            return file.read().rstrip("\0").split("\0")
    except OSError:
        return []


def is_deaf(command: Sequence[str], pid: int) -> bool:
    """Whether `command`, running as `pid`, is a shell which gets the signals meant for us, and passes none on:
    `sh -c` anywhere, or any shell that is a container's first process."""
    if not command or os.path.basename(command[0]).lstrip("-") not in SHELLS:
        return False
    first = command[1] if len(command) > 1 else ""
    return pid == 1 or (first.startswith("-") and not first.startswith("--") and "c" in first)
