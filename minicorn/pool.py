"""The arbiter's mind: what to fork, signal or kill next, computed from plain values.

Events go in (`spawned`, `ready`, `exited`, `reload`, `stop`, ...), `plan(now, promises)` gives the
actions; the arbiter performs them. No clock, signal or process is touched here, so whole
disasters are tested in milliseconds. Times are monotonic seconds.

Workers are forked by the arbiter, or come from a template (`Cradle`): a process that has imported
what they share, supervised like a worker, and told to fork by an order that takes a moment.

Rules: start new, wait for READY, then retire old; the first worker of a generation is its
canary; generations only grow; a crash is answered at once, a crash loop ever more slowly.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

# Between SIGABRT, which makes a late worker tell its stack, and SIGKILL
ABORT_GRACE = 2.0
# A worker that is dismissed while it boots may have begun to serve just before: time to hear of it
UNHEARD = 0.1
# Between the wish to stop at once and SIGKILL
QUIT_GRACE = 1.0
# Share of the graceful timeout after which nobody waits any more for a worker that does not say that it
# is sealed: C code keeps the GIL. What it gives away after all, it takes back itself when it drains
UNSEALED = 0.25
# A worker READY for so long was healthy: its end is a crash, not a crash loop
HEALTHY = 10.0
BACKOFF_FIRST, BACKOFF_MOST = 0.25, 10.0
# A template that has not forked a worker for so long after its order is stuck
ORDER_PATIENCE = 10.0
# Templates' slots begin here, so that workers' are 1, 2, 3, ...
TEMPLATE_SLOT = 2001
# With --reload: so long after a change those who wait are told that the new code is being imported
IMPORT_PATIENCE = 5.0
# The generation of an usher: a worker that imports nothing, and tells them so where nobody else can
USHER = 0
# So many samples in a row above its memory limit make a worker go; one above so many times that kills it
SAMPLES = 3
HARD = 2


def backoff(strikes: int) -> float:
    """Seconds before the next try, when so many in a row have died young: the first is replaced at once."""
    return 0.0 if strikes < 2 else min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** (strikes - 2))


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


class Cradle(Enum):
    """Where workers come from."""

    ARBITER = "the arbiter forks them"
    TEMPLATE = "each generation has a template, which has imported the application; its boot is the canary's"
    COMMON = "one template for all generations, without the application; the arbiter, while there is none"


class Stop(IntEnum):
    """How the server ends; a higher one overrules."""

    GRACEFUL = 1
    QUICK = 2


@dataclass(frozen=True, slots=True)
class Exit:
    """A child's end, as waitpid tells it: an exit code, or the signal that killed it."""

    pid: int
    code: int
    signum: int = 0


@dataclass(slots=True)
class Worker:
    """One worker: who it is, where it is in its life, and when we lose patience."""

    pid: int
    slot: int
    generation: int
    born: float
    strikes: int = 0  # deaths in a row, before it, of workers in its place that were not healthy
    state: State = State.BOOTING
    since: float = 0.0
    cause: str = ""  # why the arbiter ended it by force
    patience: float = math.inf  # of the arbiter, with a worker that retires, was aborted, or quits
    promise: float = 0.0  # the worker's own, last seen
    grant: float = 0.0  # what the arbiter overslept since that promise
    was_ready: bool = False
    dismissed: bool = False  # its end is wanted
    wish: str = ""  # why it should be replaced when its turn comes
    memory: int = 0  # bytes, last seen
    heavy: int = 0  # samples in a row above the limit
    sealing: bool = False  # it was told that the server stops
    draining: bool = False  # it was told to finish
    sealed: bool = False  # it has said that it gives nothing to others any more
    template: bool = False  # it serves nobody: workers are forked from it
    held: bool = False  # its code is out of date: it answers nothing
    excused: bool = False  # it tells those who wait that the new code takes long
    debugging: bool = False  # somebody sits in a debugger: it is never late

    def move(self, state: State, now: float) -> None:
        if state not in MOVES[self.state]:
            raise RuntimeError(f"{self} cannot become {state.value}")
        self.state = state
        self.since = now

    @property
    def serves(self) -> bool:
        """Whether it is READY, and nobody has asked it to end."""
        return self.state is State.READY

    def __str__(self) -> str:
        if self.template:
            return f"template {self.pid} (gen {self.generation})"
        if self.generation == USHER:
            return f"usher {self.pid}"
        return f"worker {self.pid} (slot {self.slot}, gen {self.generation})"


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a worker, or a template; then tell the pool by `spawned` or `spawn_failed`."""

    slot: int
    generation: int
    strikes: int = 0
    parent: int = 0  # the pid of whom to order it from; 0: the arbiter forks
    template: bool = False


@dataclass(frozen=True, slots=True)
class Retire:
    """Ask a worker to hand over what it can, finish the rest, and end."""

    pid: int


@dataclass(frozen=True, slots=True)
class Seal:
    """Tell a worker that the server stops: nothing may go into the hand-off queue any more."""

    pid: int


@dataclass(frozen=True, slots=True)
class Drain:
    """All are sealed: ask a worker to serve what waits in the queues, finish, and end."""

    pid: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Its code is out of date: tell a worker to answer nothing more, and to keep who asks."""

    pid: int


@dataclass(frozen=True, slots=True)
class Excuse:
    """Tell a held worker to say to those who wait that the new code takes long."""

    pid: int


@dataclass(frozen=True, slots=True)
class Abort:
    """SIGABRT: its stack is wanted."""

    pid: int
    late: float


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL."""

    pid: int
    reason: str


@dataclass(frozen=True, slots=True)
class Quit:
    """SIGQUIT: end without finishing."""

    pid: int


@dataclass(frozen=True, slots=True)
class Say:
    """One line for the log."""

    level: str
    text: str


Action = Spawn | Retire | Seal | Drain | Hold | Excuse | Abort | Kill | Quit | Say


@dataclass(slots=True)
class Roll:
    """A rolling restart under way, to `generation`."""

    generation: int
    began: float
    wish: int  # how many wishes for new code had been heard: it answers them all
    canary_ready: bool = False
    stumbled: bool = False  # a worker of it failed to boot


@dataclass(frozen=True, slots=True)
class Rolled:
    """A rolling restart that has ended."""

    generation: int
    wish: int  # as in Roll
    outcome: str  # "done", "failed", "superseded" by a newer one, "stopped" as all was


@dataclass(frozen=True, slots=True)
class Vacancy:
    """A place whose worker died: when its replacement is due, and how many died young there."""

    due: float
    strikes: int


@dataclass(slots=True)
class Pool:
    """The workers, the wanted number and generation, and what is going on between them."""

    size: int
    graceful_timeout: float = 30.0
    cradle: Cradle = Cradle.ARBITER
    generation: int = 1  # of the code that serves
    newest: int = 1  # the highest ever given out
    workers: dict[int, Worker] = field(default_factory=dict)
    templates: dict[int, Worker] = field(default_factory=dict)
    template_due: float = 0.0
    template_strikes: int = 0
    vacancies: list[Vacancy] = field(default_factory=list)
    roll: Roll | None = None
    reload_waits: bool = False
    reloads: int = 0  # wishes for new code that were heard
    rolled: Rolled | None = None  # the last roll that ended
    max_memory: int = 0  # bytes, of each worker; 0: no limit
    max_boot_failures: int = 0  # in a row; 0: never mind
    boot_failures: int = 0
    eager: bool = False  # --reload: old code answers nothing once it is old, and new code that fails shows so itself
    stale: int = 0  # generations up to this one are out of date (eager)
    held_at: float = math.inf  # since when nobody is answered
    booted: bool = False  # one boot has succeeded: from now on no worker's exit ends the server
    failed: bool = False  # the very first boot failed
    failed_roll: str = ""  # which roll was the last, where it failed
    gave_up: bool = False  # so many boots failed that an orchestrator should see it
    parked: bool = False  # no workers wanted, sockets kept
    stopping: Stop | None = None
    stop_at: float = 0.0  # until then it is unready, but serves
    draining: bool = False
    drain_by: float = math.inf
    orders: dict[Spawn, float] = field(default_factory=dict)  # forks under way, and since when
    renewing: bool = False
    recycling: int = 0  # the pid whose turn it is to be replaced
    _wake: float = math.inf
    _lines: list[Action] = field(default_factory=list)

    # Events

    def spawned(self, action: Spawn, pid: int, now: float) -> Worker:
        """The fork that `action` asked for has happened."""
        self.orders.pop(action, None)
        worker = Worker(pid, action.slot, action.generation, now, action.strikes, since=now, template=action.template)
        (self.templates if action.template else self.workers)[pid] = worker
        return worker

    def adopt(
        self,
        pid: int,
        slot: int,
        generation: int,
        born: float,
        strikes: int,
        ready: bool,
        retiring: bool,
        now: float,
        template: bool = False,
    ) -> None:
        """A worker, or a template, of the arbiter's image before."""
        worker = Worker(
            pid, slot, generation, born, strikes, since=now, was_ready=ready, dismissed=retiring, template=template
        )
        if retiring:
            worker.state, worker.patience = State.RETIRING, now + self.graceful_timeout
        elif ready:
            worker.state = State.READY
        (self.templates if template else self.workers)[pid] = worker
        self.booted = True

    def spawn_failed(self, action: Spawn, reason: str, now: float) -> None:
        """The fork was not to be had (EAGAIN, ENOMEM, no room for a heartbeat file, its template died)."""
        self.orders.pop(action, None)
        self._say("error", f"cannot start a {'template' if action.template else 'worker'}: {reason}")
        if action.template:
            self._put_off_template(action.strikes + 1, now)
        elif action.generation == USHER:
            self._put_off_usher(now)
        else:
            self._vacate(action.strikes + 1, now)

    def ready(self, pid: int, now: float) -> None:
        """The worker says that it serves, or the template that it can fork."""
        worker = self.workers.get(pid) or self.templates.get(pid)
        if worker is None or worker.was_ready:
            return
        worker.was_ready = True
        if worker.state is State.RETIRING:  # it was told so meanwhile, and may have begun to serve
            worker.patience = now + self.graceful_timeout
        if worker.state is not State.BOOTING:
            return
        worker.move(State.READY, now)
        took = f"after {now - worker.born:.3f} s"
        if worker.template or worker.generation == USHER:
            self._say("debug" if self.eager else "info", f"{worker} is up {took}")
            return
        self._say(self._murmur, f"{worker} is ready {took}")
        self.booted = True
        if worker.generation > self.stale:
            self.held_at = math.inf
        self.boot_failures = 0
        if self.roll and worker.generation == self.roll.generation and not self.roll.canary_ready:
            self.roll.canary_ready = True
            self.generation = self.roll.generation

    def exited(self, pid: int, now: float) -> Worker | None:
        """A child has been reaped; the worker that it was, or None for a stranger."""
        worker = self.workers.pop(pid, None) or self.templates.pop(pid, None)
        if worker is None:
            return None
        if worker.dismissed or (self.stopping is not None and (now >= self.stop_at or not self.booted)):
            return worker
        if worker.generation == USHER:
            self._put_off_usher(now)
            return worker
        essential = not worker.template or self.cradle is Cradle.TEMPLATE
        if not worker.was_ready and self.stopping is None and essential:
            self._boot_failed(worker)
        healthy = worker.was_ready and now - worker.since >= HEALTHY
        strikes = 1 if healthy else worker.strikes + 1
        if worker.template:
            self._put_off_template(strikes, now)
        elif worker.generation <= self._wanted_generation:
            self._vacate(strikes, now)
        return worker

    @property
    def children(self) -> dict[int, Worker]:
        """Workers and templates by pid."""
        return self.workers | self.templates

    @property
    def _wanted_generation(self) -> int:
        return self.roll.generation if self.roll else self.generation

    def recycle(self, pid: int, why: str) -> None:
        """The worker is to be replaced when its turn comes: one at a time, its successor first."""
        worker = self.workers.get(pid)
        if worker is not None and not worker.wish:
            worker.wish = why

    def weighed(self, pid: int, memory: int) -> None:
        """A sample of the worker's memory, in bytes; 0 where it could not be taken, as it may be dying."""
        if not memory:
            return
        worker = self.workers[pid]
        worker.memory = memory
        worker.heavy = worker.heavy + 1 if self.max_memory and memory > self.max_memory else 0
        if worker.heavy >= SAMPLES:
            self.recycle(pid, f"it uses {memory >> 20} MiB, {self.max_memory >> 20} are allowed")

    def hold(self, now: float) -> None:
        """With `eager`: all code so far is out of date, and nothing more is answered by it; `reload` follows."""
        self.stale = self.newest
        self.held_at = min(self.held_at, now)

    def stumbled(self, pid: int) -> None:
        """With `eager`: the worker could not load its code, and will show that."""
        if self.eager and pid in self.workers:
            self._stumble(self.workers[pid])

    def _stumble(self, worker: Worker) -> None:
        if self.roll is not None and worker.generation == self.roll.generation:
            self.roll.stumbled = True

    def debugging(self, pid: int) -> None:
        """Somebody debugs the worker: it is never late again."""
        if pid in self.workers:
            self.workers[pid].debugging = True

    def reload(self) -> None:
        """Wish for new code: at most one roll runs, and at most one more waits."""
        if self.stopping is None:
            self.parked = False
            self.reload_waits = True
            self.reloads += 1

    def configure(self, graceful_timeout: float, max_memory: int, max_boot_failures: int) -> None:
        """The operator has changed his mind; it counts from now on."""
        self.graceful_timeout = graceful_timeout
        self.max_memory = max_memory
        self.max_boot_failures = max_boot_failures

    def resize(self, by: int) -> None:
        """One worker more or fewer, never below one."""
        self.size = max(1, self.size + by)
        self._say("info", f"{self.size} workers wanted")

    def park(self) -> None:
        """Retire all workers and keep the sockets, until a reload."""
        self.parked = True
        self._end_roll("stopped")
        self.reload_waits = False
        self.vacancies.clear()

    def sealed(self, pid: int) -> None:
        """The worker gives nothing to others any more."""
        if pid in self.workers:
            self.workers[pid].sealed = True

    def stop(self, how: Stop, at: float = 0.0) -> bool:
        """End the server, from `at` on; a graceful stop can be hastened, never slowed. Whether that is news."""
        if self.stopping is not None and how <= self.stopping:
            return False
        self.stopping = how
        self.stop_at = at
        self._end_roll("stopped")  # what serves now serves until then
        return True

    def overslept(self, missed: float, promises: Mapping[int, float]) -> None:
        """The arbiter itself was stopped for so long: nobody could be heard, so nobody is late."""
        for worker in self.children.values():
            self._hear(worker, promises)
            worker.grant += missed
            worker.patience += missed
        self.orders = {order: since + missed for order, since in self.orders.items()}

    # The plan

    def plan(self, now: float, promises: Mapping[int, float]) -> list[Action]:
        """What to do now. `promises` gives, by pid, when each worker may be judged late."""
        self._wake = math.inf
        actions = self._judge(now, promises)
        if self.stopping is not None and now >= self.stop_at:
            actions += self._plan_stop(now)
        elif self.stopping is not None:
            self._wake = min(self._wake, self.stop_at)
            if self.booted and not self.parked:
                actions += self._plan_templates(now) + self._plan_spawns(now)  # whoever dies before that is replaced
        elif self.parked:
            actions += [self._dismiss(worker, now) for worker in self._live() + self._live_templates()]
        elif self.eager:
            actions += self._plan_holds(now)
            self._turn_roll(now)
            actions += self._plan_templates(now) + self._plan_spawns(now)
            actions += self._plan_retirements(now) + self._plan_ushers(now)
        else:
            self._turn_roll(now)
            actions += self._plan_templates(now)
            actions += self._plan_spawns(now)
            actions += self._plan_retirements(now)
        lines, self._lines = self._lines, []
        return lines + actions

    @property
    def wake_at(self) -> float:
        """When the next plan is due, if no event comes before."""
        return self._wake

    @property
    def ended(self) -> bool:
        """Stopped, and the last worker is gone, with none to come in its place."""
        return self.stopping is not None and not (self.workers or self.templates or self.orders or self.vacancies)

    @property
    def calm(self) -> bool:
        """No roll runs or waits, nobody is being killed, and no end is near."""
        killing = any(worker.state in (State.ABORTED, State.KILLED) for worker in self.children.values())
        return self.booted and not (self.roll or self.reload_waits or self.stopping or killing or self.orders)

    # Lateness

    def _judge(self, now: float, promises: Mapping[int, float]) -> list[Action]:
        actions: list[Action] = []
        for worker in self.children.values():
            self._hear(worker, promises)
            deadline = min(worker.promise + worker.grant, worker.patience)
            if worker.state is State.ABORTED:
                deadline = worker.patience
            if worker.state is State.KILLED or (worker.debugging and self.stopping is None):
                continue
            if self.max_memory and worker.memory > HARD * self.max_memory:
                reason = f"it uses {worker.memory >> 20} MiB, {HARD} times {self.max_memory >> 20} are the limit"
                actions.append(self._kill(worker, reason, now, "memory"))
                continue
            if now < deadline:
                self._wake = min(self._wake, deadline)
            elif worker.state is State.ABORTED:
                actions.append(self._kill(worker, "it did not die of SIGABRT", now, worker.cause))
            elif worker.patience <= now and not worker.was_ready:
                actions.append(self._kill(worker, "not needed any more", now, "retired"))
            elif worker.patience <= now:
                asked = "to stop" if self.stopping is not None else "to retire"
                reason = f"{now - worker.since:.1f} s after it was asked {asked}"
                actions.append(self._kill(worker, reason, now, "overdue"))
            else:
                worker.move(State.ABORTED, now)
                worker.cause = "timeout"
                worker.patience = now + ABORT_GRACE
                self._wake = min(self._wake, worker.patience)
                actions.append(Abort(worker.pid, now - deadline))
        return actions + self._judge_templates(now)

    def _judge_templates(self, now: float) -> list[Action]:
        """A template has nothing to promise while it waits: its orders tell whether it lives."""
        actions: list[Action] = []
        for order, since in self.orders.items():
            template = self.templates.get(order.parent)
            if template is None or template.state is State.KILLED:
                continue
            if now >= since + ORDER_PATIENCE:
                actions.append(self._kill(template, f"no worker came of it for {ORDER_PATIENCE:g} s", now, "timeout"))
            else:
                self._wake = min(self._wake, since + ORDER_PATIENCE)
        return actions

    def _hear(self, worker: Worker, promises: Mapping[int, float]) -> None:
        """A new promise ends what was granted on the one before."""
        promise = promises.get(worker.pid, math.inf)
        if promise != worker.promise:
            worker.promise, worker.grant = promise, 0.0

    def _kill(self, worker: Worker, reason: str, now: float, cause: str) -> Action:
        worker.move(State.KILLED, now)
        worker.cause = cause
        return Kill(worker.pid, reason)

    def _dismiss(self, worker: Worker, now: float) -> Action:
        """Its end is wanted: a worker that serves finishes, one that boots has nothing to finish."""
        worker.dismissed = True
        worker.move(State.RETIRING, now)
        grace = QUIT_GRACE if worker.template else self.graceful_timeout
        worker.patience = now + (grace if worker.was_ready else UNHEARD)
        self._wake = min(self._wake, worker.patience)
        return Retire(worker.pid)

    # Stopping

    def _plan_stop(self, now: float) -> list[Action]:
        """Nobody gives to the queue any more; when all have said so, what waits in it is served."""
        actions: list[Action] = [self._dismiss(template, now) for template in self._live_templates()]
        self.vacancies.clear()
        for worker in self._live():
            self._dismiss(worker, now)  # what to do is said by Seal, then by Drain
        retiring = [w for w in self.workers.values() if w.state is State.RETIRING]
        for worker in retiring:
            if not worker.sealing:
                worker.sealing = True
                actions.append(Seal(worker.pid))
        if not self.draining:
            self.drain_by = min(self.drain_by, now + UNSEALED * self.graceful_timeout)
            self._wake = min(self._wake, self.drain_by)
            if now >= self.drain_by or all(worker.sealed or not worker.was_ready for worker in retiring):
                self.draining = True
        if self.draining:
            for worker in retiring:  # whoever was being born when the rest was told comes later
                if not worker.draining:
                    worker.draining = True
                    actions.append(Drain(worker.pid))
        if self.stopping is Stop.QUICK:
            for worker in self.workers.values():
                if worker.state is not State.KILLED and worker.patience > now + QUIT_GRACE:
                    worker.patience = now + QUIT_GRACE
                    self._wake = min(self._wake, worker.patience)
                    actions.append(Quit(worker.pid))
        return actions

    # Serving

    def _active(self) -> list[Worker]:
        """Those that serve or will; the first are the first to go."""
        active = [w for w in self._live() if w.generation != USHER]
        return sorted(active, key=lambda w: (w.generation, w.pid != self.recycling, w.born, w.slot))

    def _live(self) -> list[Worker]:
        return [w for w in self.workers.values() if w.state in (State.BOOTING, State.READY)]

    def _plan_holds(self, now: float) -> list[Action]:
        """What is out of date answers nothing; after a while it says that the new code takes long."""
        actions: list[Action] = []
        if not self.booted:
            self.held_at = min(self.held_at, now)
        excuse_at = self.held_at + IMPORT_PATIENCE
        for worker in self._active():
            if worker.state is not State.READY or worker.generation > self.stale:
                continue
            if not worker.held:
                worker.held = True
                actions.append(Hold(worker.pid))
            elif now >= excuse_at and not worker.excused:
                worker.excused = True
                actions.append(Excuse(worker.pid))
        if now < excuse_at:
            self._wake = min(self._wake, excuse_at)
        return actions

    def _plan_ushers(self, now: float) -> list[Action]:
        """Where those who wait have nobody to tell them why, somebody is born to; until there is new code."""
        ushers = [w for w in self._live() if w.generation == USHER]
        if self.held_at == math.inf:
            return [self._dismiss(usher, now) for usher in ushers]
        told = any(worker.state is State.READY for worker in self._active())
        ordered = any(order.generation == USHER for order in self.orders)
        if now < self.held_at + IMPORT_PATIENCE or told or ushers or ordered:
            return []
        spawn = Spawn(self._free_slot(), USHER)
        self.orders[spawn] = now
        return [spawn]

    def _put_off_usher(self, now: float) -> None:
        """It has died, or could not be forked: the next comes as late as the first."""
        if self.held_at < math.inf:
            self.held_at = now

    def _turn_roll(self, now: float) -> None:
        """End a roll that is complete, begin one that waits."""
        roll = self.roll
        if roll is not None:
            if (roll.stumbled or self.eager) and self.reload_waits:
                newer = f"roll to generation {roll.generation} is given up for a newer one"
                self._say("debug" if self.eager else "warning", newer)
                self._end_roll("superseded")
            elif self._is_complete(roll):
                self._tell_roll(roll, now - roll.began)
                self._end_roll("done")
        if self.roll is None and self.reload_waits and (self.booted or self.eager):
            self.reload_waits = False
            self.newest += 1
            self.roll = Roll(self.newest, min(now, self.held_at), self.reloads)
            self.failed_roll = ""
            self.vacancies.clear()  # the new code deserves a try at once
            self.template_due, self.template_strikes = 0.0, 0
            self._say(self._murmur, f"rolling to generation {self.newest}")

    def _tell_roll(self, roll: Roll, took: float) -> None:
        if self.eager and roll.stumbled:
            self._say("warning", "The error is shown to whoever asks, until the code is mended")
        elif self.eager:
            self._say("info", f"Reloaded in {took:.2f} s (generation {roll.generation})")
        else:
            workers = f"{self.size} workers replaced in {took:.1f} s"
            self._say("info", f"generation {roll.generation} serves: {workers}")

    def _end_roll(self, outcome: str) -> None:
        if self.roll is not None:
            self.rolled = Rolled(self.roll.generation, self.roll.wish, outcome)
            self.roll = None

    def _is_complete(self, roll: Roll) -> bool:
        new = [w for w in self.workers.values() if w.generation == roll.generation]
        ready = sum(w.state is State.READY for w in new)
        # With --reload somebody waits to read of it; what the old ones finish is no part of it
        return ready >= self.size and (self.eager or len(new) == len(self.workers))

    def _plan_spawns(self, now: float) -> list[Action]:
        """Fill what is short; a roll adds its canary, then a few at a time, beyond the number."""
        active = self._active()
        wanted = self.size - len(active)
        generation, parent = self._find_parent()
        if parent is None:
            return []  # a template boots
        if self.roll is None:
            wanted += self._next_to_recycle(active)
        elif generation == self.roll.generation:
            new = [w for w in active if w.generation == generation]
            booting = sum(w.state is State.BOOTING for w in new)
            tried = any(w.generation == generation for w in self.workers.values())  # its end is awaited, then
            missing = self.size - len(new) if self.roll.canary_ready else int(not tried)
            # Kubernetes' maxSurge: a quarter more than the number, at least one; none of it where the old only wait
            surge = self.size if self.eager else max(1, self.size // 4)
            wanted = max(wanted, min(missing, surge - booting))
        if generation <= self.stale:
            return []  # newer code is about to be imported
        actions: list[Action] = []
        ordered = sum(not order.template for order in self.orders)
        for strikes in self._due(wanted - ordered, now):
            spawn = Spawn(self._free_slot(), generation, strikes, parent)
            actions.append(spawn)
            self.orders[spawn] = now
        return actions

    def _find_parent(self) -> tuple[int, int | None]:
        """Of which generation a worker that is forked now would be, and whose child: a template's, the
        arbiter's (0), or None as nobody can fork it yet."""
        generation = self._wanted_generation
        if self.cradle is Cradle.ARBITER:
            return generation, 0  # it imports the new code, whatever it replaces
        ready = [t for t in self.templates.values() if t.state is State.READY]
        if self.cradle is Cradle.COMMON:
            return generation, max(ready, key=lambda t: t.born).pid if ready else 0
        by_generation = {template.generation: template.pid for template in ready}
        if generation not in by_generation:
            generation = self.generation  # whoever dies while the new template boots is replaced by the old one
        return generation, by_generation.get(generation)

    def _next_to_recycle(self, active: list[Worker]) -> int:
        """Whether one more is wanted, to take the place of a worker that is to go; one at a time."""
        wishing = [w for w in active if w.wish and w.state is State.READY]
        if not wishing:
            return 0
        if self.recycling not in self.workers or self.workers[self.recycling].dismissed:
            self.recycling = wishing[0].pid
            self._say("info", f"{wishing[0]} is being replaced: {wishing[0].wish}")
        return 1

    def _due(self, wanted: int, now: float) -> list[int]:
        """The strikes of up to `wanted` workers that may be forked now: vacant places whose time
        has come, and new places; a place that backs off holds its share of the wanted."""
        due = sorted((v for v in self.vacancies if v.due <= now), key=lambda v: v.due)[: max(0, wanted)]
        waiting = [v for v in self.vacancies if v not in due]
        self.vacancies = waiting[: max(0, wanted - len(due))]
        for vacancy in self.vacancies:
            self._wake = min(self._wake, vacancy.due)
        fresh = wanted - len(due) - len(self.vacancies)
        return [v.strikes for v in due] + [0] * fresh

    def _free_slot(self, first: int = 1) -> int:
        taken = {w.slot for w in self.children.values()} | {order.slot for order in self.orders}
        return next(slot for slot in itertools.count(first) if slot not in taken)

    def _plan_retirements(self, now: float) -> list[Action]:
        """Once enough are READY the oldest beyond the number go, and what boots for no purpose."""
        active = self._active()
        ready = [w for w in active if w.state is State.READY]
        surplus = ready[: max(0, len(ready) - self.size)]
        wanted = self.roll.generation if self.roll else self.generation
        if self.eager and (self.roll is None or self.roll.canary_ready):
            surplus = [w for w in ready if w.generation < wanted] or surplus
        for worker in active:
            if worker.state is State.BOOTING and (
                worker.generation > wanted
                or (worker.generation < wanted and len(ready) >= self.size)
                or worker.generation <= self.stale
            ):
                surplus.append(worker)
        return [self._dismiss(worker, now) for worker in surplus]

    # Templates

    def renew_template(self) -> None:
        """What the common template has imported is out of date: another takes its place."""
        self.template_due, self.template_strikes, self.renewing = 0.0, 0, True

    def _live_templates(self) -> list[Worker]:
        return [t for t in self.templates.values() if t.state in (State.BOOTING, State.READY)]

    def _plan_templates(self, now: float) -> list[Action]:
        """One that is wanted is built, one that has outlived its use ends."""
        if self.cradle is Cradle.ARBITER:
            return [self._dismiss(template, now) for template in self._live_templates() if self._is_past_use(template)]
        actions: list[Action] = []
        if self.renewing:
            self.renewing = False
            actions += [self._dismiss(template, now) for template in self._live_templates()]
        actions += [self._dismiss(template, now) for template in self._live_templates() if self._is_past_use(template)]
        generation = self._wanted_generation
        # One that is being killed is waited for: its end is a failed boot, and may end the roll
        standing = [t for t in self.templates.values() if not t.dismissed]
        if self.cradle is Cradle.TEMPLATE:
            standing = [t for t in standing if t.generation == generation]
        if standing or any(order.template for order in self.orders):
            return actions
        if now < self.template_due:
            self._wake = min(self._wake, self.template_due)
            return actions
        build = Spawn(self._free_slot(TEMPLATE_SLOT), generation, self.template_strikes, template=True)
        self.orders[build] = now
        return [*actions, build]

    def _is_past_use(self, template: Worker) -> bool:
        """Its generation has been given up, or its last worker has gone."""
        if self.cradle is Cradle.COMMON:
            return False
        if template.generation >= self.generation and self.cradle is Cradle.TEMPLATE:
            return template.generation > self._wanted_generation
        return all(worker.generation > template.generation for worker in self.workers.values())

    def _put_off_template(self, strikes: int, now: float) -> None:
        delay = backoff(strikes)
        if delay:
            self._say("warning", f"templates die young: {strikes} in a row, the next try in {delay:g} s")
        self.template_due, self.template_strikes = now + delay, strikes
        self._wake = min(self._wake, self.template_due)

    # Deaths

    def _boot_failed(self, worker: Worker) -> None:
        self.boot_failures += 1
        if self.eager:
            self._stumble(worker)  # the next one in its place shows why
            return
        if not self.booted:
            self.failed = True
            self.stop(Stop.QUICK)
        elif self.boot_failures == self.max_boot_failures:
            self._say("error", f"{self.boot_failures} boots have failed in a row: giving up")
            self.gave_up = True
            self.stop(Stop.GRACEFUL)
        elif self.roll is not None and worker.generation == self.roll.generation:
            self.roll.stumbled = True
            if not self.roll.canary_ready:
                who = "template" if worker.template else "first worker"
                off = f"roll to generation {self.roll.generation} is off: its {who} failed to boot"
                self._say("error", f"{off}; generation {self.generation} serves on")
                self.failed_roll = f"the roll to generation {self.roll.generation} failed"
                self._end_roll("failed")

    def _vacate(self, strikes: int, now: float) -> None:
        delay = backoff(strikes)
        if delay:
            self._say("warning", f"workers die young: {strikes} in a row, the next try in {delay:g} s")
        self.vacancies.append(Vacancy(now + delay, strikes))
        self._wake = min(self._wake, now + delay)  # a fork that failed comes after the plan

    @property
    def _murmur(self) -> str:
        """The level of what goes without saying to somebody who edits and looks."""
        return "debug" if self.eager and self.newest > 1 else "info"

    def _say(self, level: str, text: str) -> None:
        self._lines.append(Say(level, text))
