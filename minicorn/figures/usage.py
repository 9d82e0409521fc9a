"""What processes take of the machine: seconds of CPU, bytes of memory; psutil where there is no /proc."""

from __future__ import annotations

import os
from pathlib import Path

from minicorn.figures.snapshot import QueueView, Snapshot, Usage
from minicorn.record import replace
from minicorn.system.memory import read_memory
from minicorn.system.queues import read_queues

_TICKS = os.sysconf("SC_CLK_TCK")


def read_cpu(pid: int, reaped: bool = False) -> float:
    """Seconds, user and system, of all its threads, and of the children that it has `reaped`; 0.0 when
    the system does not tell."""
    try:
        # The name, which may hold anything, ends with the last bracket: proc(5)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11 : 15 if reaped else 13])) / _TICKS
    except FileNotFoundError:
        return _ask_psutil(pid)
    except OSError:
        return 0.0


def read_parent(pid: int) -> int:
    """The pid of its parent; 0 when the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def read_children(pid: int) -> set[int]:
    """The pids of its children; none where the system does not tell."""
    try:
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return set()


def with_usage(snapshot: Snapshot) -> Snapshot:
    """`snapshot` with what its processes use, and what waits for them."""
    workers = tuple(replace(worker, usage=_usage(worker.pid)) for worker in snapshot.workers)
    standing = snapshot.standing
    arbiter = replace(_usage(standing.pid), cpu=read_cpu(standing.pid, reaped=True))
    others = read_children(standing.pid) - {worker.pid for worker in workers}
    figures = read_queues()
    queues = tuple(QueueView(each.name, *figures[each.inode]) for each in standing.listeners if each.inode in figures)
    return replace(snapshot, workers=workers, usage=arbiter, others=tuple(map(_usage, sorted(others))), queues=queues)


def _usage(pid: int) -> Usage:
    memory = read_memory(pid)
    return Usage(read_cpu(pid), memory.rss, memory.pss, memory.shared, memory.private)


def _ask_psutil(pid: int) -> float:
    try:
        import psutil
    except ImportError:
        return 0.0
    try:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    except psutil.Error:
        return 0.0
