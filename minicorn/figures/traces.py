"""Stacks of workers that run: asked for by a signal, written by faulthandler into the slot's file.

The handler is C, so a worker answers even while other C code keeps the GIL; it goes on as before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from minicorn.figures.snapshot import WorkerView
from minicorn.system.process import read_parent
from minicorn.system.signals import STACKS

# Seconds that an answer may take, and for which it must not have grown to be whole: faulthandler marks no end
PATIENCE, SETTLED = 2.0, 0.05


def take(path: Path, arbiter: int, workers: Iterable[WorkerView]) -> Iterator[tuple[WorkerView, str]]:
    """Each worker of the server in directory `path` with its stacks; "" for one that does not answer."""
    for worker in workers:
        yield worker, _ask(path / f"{worker.slot}.trace", worker.pid, arbiter)


def _ask(file: Path, pid: int, arbiter: int) -> str:
    try:
        # The pid may be another process's by now; a parent of 0: the system does not tell
        if read_parent(pid) not in (arbiter, 0):
            return ""
        # It is in a directory of the workers' user: a link that they leave there must not lead root astray
        with open(os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b", buffering=0) as opened:
            opened.truncate(0)
            os.kill(pid, STACKS)
            _await_end(file)
            return opened.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _await_end(file: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    size, since = 0, time.monotonic()
    while (now := time.monotonic()) < deadline and not (size and now - since > SETTLED):
        grown = file.stat().st_size
        if grown != size:
            size, since = grown, now
        time.sleep(0.005)
