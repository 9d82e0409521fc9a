"""What a server looked like at one moment: plain values, for whoever shows them.

Times are monotonic seconds as the server's machine counts them, unless they are `at`.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from minicorn.figures.counters import NOTHING, Counters, add_up
from minicorn.pool.standing import Complaint, Stage, Standing
from minicorn.record import Value, fresh

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
LONG_SILENCE = 5.0


class Usage(Value):
    """What a process has taken of the machine: seconds of CPU, bytes (see `process.Memory`)."""

    cpu: float = 0.0
    rss: int = 0
    pss: int = 0
    shared: int = 0
    private: int = 0


class Condition(StrEnum):
    """What a worker is doing: where it is in its life, as the arbiter sees it; while it serves, what it says itself."""

    BOOTING = "booting"
    IDLE = "idle"
    BUSY = "busy"  # inside the application
    RETIRING = "retiring"
    ABORTED = "aborted"
    KILLED = "killed"


class WorkerView(Value):
    """One worker at that moment."""

    slot: int
    pid: int
    generation: int
    state: Condition
    born: float
    since: float  # it does what it does
    request: str  # in hand, or the last one
    client: str
    connections: int
    counters: Counters
    error: Complaint | None = None
    usage: Usage = fresh(Usage)

    @property
    def busy(self) -> bool:
        """Whether it is inside the application."""
        return self.state is Condition.BUSY


class QueueView(Value):
    """The accept queue of one listener: connections that wait in it, and how many it can hold."""

    listener: str
    waiting: int
    room: int


class Snapshot(Value):
    """One server at that moment."""

    now: float
    heard: float  # the arbiter was alive
    standing: Standing
    workers: tuple[WorkerView, ...]
    gone: Counters = NOTHING  # what the workers that are no more have counted
    usage: Usage = fresh(Usage)  # the arbiter's, and the CPU time of the children it has reaped
    queues: tuple[QueueView, ...] = ()
    cpu_at_least: float = 0.0
    others: tuple[Usage, ...] = ()  # of its templates, its watcher, its monitor, ...

    @property
    def silence(self) -> float:
        """Seconds since the arbiter, which has something to say every second, was heard; 0 when that is not long."""
        silent = self.now - self.heard
        return silent if silent > LONG_SILENCE else 0.0

    @property
    def cpu(self) -> float:
        """Seconds of CPU that the arbiter and all its workers have had."""
        return max(self.cpu_at_least, self.usage.cpu + sum(worker.usage.cpu for worker in self.workers))

    @property
    def processes(self) -> list[Usage]:
        """What each process of the server uses: arbiter, workers, others."""
        return [self.usage, *(worker.usage for worker in self.workers), *self.others]

    @property
    def pss(self) -> int:
        """Bytes that all its processes take together, shared memory counted once."""
        return sum(each.pss for each in self.processes)

    @property
    def private(self) -> int:
        """Bytes that its processes share with nobody."""
        return sum(each.private for each in self.processes)

    @property
    def totals(self) -> Counters:
        """The counters of all workers since the server began; none of them ever goes back."""
        return add_up([self.gone, *(worker.counters for worker in self.workers)])

    @property
    def connections(self) -> int:
        """How many connections workers hold."""
        return sum(worker.connections for worker in self.workers)

    @property
    def states(self) -> Counter[Condition]:
        """How many workers are in each state."""
        return Counter(worker.state for worker in self.workers)

    @property
    def unready(self) -> str:
        """Why it should be sent no requests; "" when it should."""
        if self.standing.stage is not Stage.SERVING:
            return self.standing.stage.value
        serving = any(worker.state in (Condition.IDLE, Condition.BUSY) for worker in self.workers)
        return "" if serving else "no worker is ready"

    @property
    def errors(self) -> list[Complaint]:
        """The last errors that were logged, by the arbiter and by workers, oldest first."""
        own = [worker.error for worker in self.workers if worker.error is not None]
        return sorted([*self.standing.errors, *own], key=lambda complaint: complaint.at)
