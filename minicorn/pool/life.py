"""One worker's life, or one template's, as the arbiter sees it: states, legal moves, and patience.

A worker promises when it may be judged late; the arbiter's own patience begins when it asks for
the worker's end. Late means: SIGABRT, so that it tells its stack, then SIGKILL. Times are
monotonic seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum, IntEnum, StrEnum

from minicorn.pool.actions import Abort, Kill
from minicorn.pool.backoff import strike
from minicorn.record import Record, Value

# Seconds between SIGABRT, which makes a late worker write its stack, and SIGKILL
ABORT_GRACE = 2.0
# Seconds in which to hear that a worker had begun to serve, just before it was dismissed as one that boots
UNHEARD = 0.1
# Seconds between the wish to stop at once and SIGKILL
QUIT_GRACE = 1.0
# The generation of a placeholder: a worker that imports nothing, and tells those who wait for the code
PLACEHOLDER = 0
# Samples in a row above its memory limit that make a worker go, and times the limit at which one sample kills it
SAMPLES = 3
HARD = 2


class State(Enum):
    """Where a worker is in its life, as the arbiter sees it."""

    BOOTING = "booting"
    READY = "ready"
    RETIRING = "retiring"
    ABORTED = "aborted"  # told to show its stack and die
    KILLED = "killed"


MOVES: Mapping[State, frozenset[State]] = {
    State.BOOTING: frozenset({State.READY, State.RETIRING, State.ABORTED, State.KILLED}),
    State.READY: frozenset({State.RETIRING, State.ABORTED, State.KILLED}),
    State.RETIRING: frozenset({State.ABORTED, State.KILLED}),
    State.ABORTED: frozenset({State.KILLED}),
    State.KILLED: frozenset(),
}


class Closing(IntEnum):
    """How far a worker is on the way to the server's end; there is no way back."""

    OPEN = 0
    SEALING = 1  # told to give nothing to others any more
    SEALED = 2  # it has said that it does not
    DRAINING = 3  # told to finish, sealed or not


class Freshness(IntEnum):
    """What becomes of a worker whose code is out of date; there is no way back."""

    CURRENT = 0
    HELD = 1  # told to answer nothing, and to keep who asks
    EXCUSED = 2  # told to say to those who wait that the new code takes long


class Cause(StrEnum):
    """Why a worker has gone, in the word by which such ends are counted and logged."""

    TIMEOUT = "timeout"  # it was late
    OVERDUE = "overdue"  # it did not end in the time that it had for that
    MEMORY = "memory"  # it used far more than it may
    OOM = "oom"  # the kernel has killed it for want of memory
    SIGNAL = "signal"  # that we did not send
    EXIT = "exit"  # by itself, though nobody wanted it, or by a failure
    BOOT = "boot"  # before it served
    RECYCLED = "recycled"  # as it or its limits wished
    RETIRED = "retired"


class Exit(Value):
    """A child's end, as waitpid tells it: an exit code, or the signal that killed it."""

    pid: int
    code: int
    signum: int = 0


class Worker(Record):
    """One worker: who it is, where it is in its life, and when we lose patience."""

    pid: int
    slot: int
    generation: int
    born: float
    strikes: int = 0  # deaths in a row, before it, of workers in its place that were not healthy
    state: State = State.BOOTING
    since: float = 0.0
    cause: Cause | None = None  # why the arbiter ended it by force
    patience: float = math.inf  # of the arbiter, with a worker that retires, was aborted, or quits
    promise: float = 0.0  # the worker's own, last seen
    grant: float = 0.0  # what the arbiter overslept since that promise
    was_ready: bool = False
    load_failed: bool = False  # with --reload: it could not load its code, and will show why
    dismissed: bool = False  # its end is wanted
    wish: str = ""  # why it should be replaced when its turn comes
    memory: int = 0  # bytes, last seen
    max_memory: int = 0  # --max-worker-memory, in bytes; 0: no limit
    allowed_memory: int = 0  # bytes above which it is replaced; more than that where it began above it
    fatal_memory: float = math.inf  # bytes above which it is killed
    answered: int = 0  # requests, last seen
    asked: int = 0  # how many they were when it was last asked to fork a template
    samples_above: int = 0  # samples in a row above the limit
    closing: Closing = Closing.OPEN
    freshness: Freshness = Freshness.CURRENT
    template: bool = False  # it serves nobody: workers are forked from it
    debugging: bool = False  # somebody sits in a debugger: it is never late

    def move(self, state: State, now: float) -> None:
        """Enter `state`; RuntimeError for a move that is not in MOVES."""
        if state not in MOVES[self.state]:
            raise RuntimeError(f"{self} cannot become {state.value}")
        self.state = state
        self.since = now

    @property
    def serves(self) -> bool:
        """Whether it serves clients: it is READY, and nobody has asked it to end."""
        return self.state is State.READY

    @property
    def is_active(self) -> bool:
        """Whether it serves, or boots and is going to."""
        return self.state in (State.BOOTING, State.READY)

    def strikes_after(self, now: float) -> int:
        """How many in a row have died young in its place, now that it has died too."""
        return strike(self.strikes, now - self.since if self.was_ready else 0.0)

    def dismiss(self, grace: float, now: float) -> None:
        """Retire it: one that serves has `grace` seconds to finish, one that boots has nothing to finish."""
        self.dismissed = True
        self.move(State.RETIRING, now)
        self.patience = now + (grace if self.was_ready else UNHEARD)

    def kill(self, reason: str, cause: Cause, now: float) -> Kill:
        """The action that kills it for `reason`, in words; its end is counted as `cause`."""
        self.move(State.KILLED, now)
        self.cause = cause
        return Kill(self.pid, reason)

    # Lateness

    def hear(self, promise: float) -> None:
        """Take note of its promise; a new one ends what was granted on the one before."""
        if promise != self.promise:
            self.promise, self.grant = promise, 0.0

    def overslept(self, missed: float) -> None:
        """Grant it the seconds for which the arbiter could not hear it."""
        self.grant += missed
        self.patience += missed

    def is_judged(self, stopping: bool) -> bool:
        """Whether it can be late: it is not killed yet, and nobody debugs it."""
        return self.state is not State.KILLED and (stopping or not self.debugging)

    @property
    def deadline(self) -> float:
        """When it is late, in monotonic seconds."""
        return self.patience if self.state is State.ABORTED else min(self.promise + self.grant, self.patience)

    def judge(self, now: float, stopping: bool) -> Abort | Kill | None:
        """The action that ends it, if that must be by force now."""
        if self.memory > self.fatal_memory:
            reason = f"it uses {self.memory >> 20} MiB, {HARD} times {self.max_memory >> 20} are the limit"
            return self.kill(reason, Cause.MEMORY, now)
        late = now - self.deadline
        if late < 0:
            return None
        if self.state is State.ABORTED:
            return self.kill("it did not die of SIGABRT", Cause.TIMEOUT, now)
        if now >= self.patience:
            if not self.was_ready:
                return self.kill("not needed any more", Cause.RETIRED, now)
            asked = "to stop" if stopping else "to retire"
            return self.kill(f"{now - self.since:.1f} s after it was asked {asked}", Cause.OVERDUE, now)
        self.move(State.ABORTED, now)
        self.cause = Cause.TIMEOUT
        self.patience = now + ABORT_GRACE
        return Abort(self.pid, late)

    def __str__(self) -> str:
        if self.template:
            return f"template {self.pid} (gen {self.generation})"
        if self.generation == PLACEHOLDER:
            return f"placeholder {self.pid}"
        return f"worker {self.pid} (slot {self.slot}, gen {self.generation})"
