"""What the processes of a server take of the machine: seconds of CPU, bytes of memory, places in queues."""

from __future__ import annotations

from minicorn.figures.snapshot import QueueView, Snapshot, Usage
from minicorn.record import replace
from minicorn.system.process import read_children, read_cpu, read_memory
from minicorn.system.queues import read_queues


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
