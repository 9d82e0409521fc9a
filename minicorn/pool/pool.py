"""The arbiter's mind: what to fork, signal or kill next, computed from plain values.

Events go in (`spawned`, `ready`, `exited`, `reload`, `stop`, ...), `plan(now, promises)` gives the
actions; the arbiter performs them. No clock, signal or process is touched here, so whole
disasters are tested in milliseconds. Times are monotonic seconds.

The pool keeps the workers at their number, and knows what became of each: a `life`. Its parts
have a matter each, and write into one agenda: `rolls` (new code), `forking` (whom workers are
forked by), `reforks` (who is warm enough to fork others), `vacancies` (who died young waits),
`waiting` (clients, for new code), `stopping`.

Rules: start new, wait for READY, then retire old; the first worker of a generation is its
canary; generations only grow; a crash is answered at once, a crash loop ever more slowly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from minicorn.pool.actions import Action, Agenda, Level, Retire, Spawn
from minicorn.pool.backoff import Vacancies
from minicorn.pool.forking import Forking, ForkSource
from minicorn.pool.life import HARD, PLACEHOLDER, SAMPLES, Closing, State, Worker
from minicorn.pool.reforks import Reforks
from minicorn.pool.rolls import Ending, Rolls
from minicorn.pool.shutdown import Shutdown, Stop
from minicorn.pool.waiting import Waiting


class Pool:
    """The workers, the wanted number, and what is going on between them."""

    def __init__(
        self,
        size: int,
        graceful_timeout: float,
        *,
        max_boot_failures: int,
        fork_source: ForkSource,
        development: bool,
        refork_after: tuple[int, ...],
    ) -> None:
        """`max_boot_failures`: in a row; 0 for no limit. `development`: --reload."""
        self.size = size
        self.graceful_timeout = graceful_timeout
        self._max_boot_failures = max_boot_failures
        self._agenda = Agenda()
        self.workers: dict[int, Worker] = {}
        self.rolls = Rolls(self._agenda, development)
        self.forking = Forking(self._agenda, self.rolls, fork_source)
        self.waiting = Waiting(self._agenda, self.forking)
        self._reforks = Reforks(self._agenda, self.rolls, self.forking, refork_after)
        self.vacancies = Vacancies(self._agenda)
        self.stopping: Shutdown | None = None
        self.booted = False  # one boot has succeeded: from now on no worker's exit ends the server
        self.failed = False  # the very first boot failed
        self.gave_up = False  # so many boots failed that an orchestrator should see it
        self.parked = False  # no workers wanted, sockets kept
        self._boot_failures = 0
        self._recycling = 0  # the pid whose turn it is to be replaced

    # Events: births and deaths

    def spawned(self, action: Spawn, pid: int, now: float) -> None:
        """Take note of the fork that `action` has asked for."""
        self.forking.orders.pop(action, None)
        if action.parent in self.workers:
            self._reforks.born(action, self.workers[action.parent])
        self._add(Worker(pid, action.slot, action.generation, now, action.strikes, template=action.template))

    def adopt(self, worker: Worker, now: float) -> None:
        """Take on a worker, or a template, of the arbiter's image before."""
        worker.since = now
        if worker.dismissed:
            worker.state, worker.patience = State.RETIRING, now + self.graceful_timeout
        elif worker.was_ready:
            worker.state = State.READY
        self._add(worker)

    def _add(self, child: Worker) -> None:
        (self.forking.templates if child.template else self.workers)[child.pid] = child

    def spawn_failed(self, action: Spawn, reason: str, now: float) -> None:
        """Try again later what could not be forked (EAGAIN, ENOMEM, no room for a heartbeat file, a dead template)."""
        self.forking.orders.pop(action, None)
        if action.template and action.parent:
            self._reforks.refused(action, self.workers.get(action.parent), reason, now)
            return
        self._agenda.say(Level.ERROR, f"cannot start a {'template' if action.template else 'worker'}: {reason}")
        if action.template:
            self.forking.failed(action.strikes + 1, now)
        elif action.generation == PLACEHOLDER:
            self.waiting.placeholder_failed(now)
        else:
            self.vacancies.add(action.strikes + 1, now)

    def ready(self, pid: int, now: float) -> None:
        """The worker says that it serves, or the template that it can fork."""
        worker = self.children.get(pid)
        if worker is None or worker.state is State.KILLED:  # as it said so, perhaps
            return
        worker.was_ready = True
        if worker.state is State.RETIRING:  # it was told so meanwhile, and may have begun to serve
            worker.patience = now + self.graceful_timeout
        if worker.state is not State.BOOTING:
            return
        worker.move(State.READY, now)
        took = f"after {now - worker.born:.3f} s"
        if worker.template or worker.generation == PLACEHOLDER:
            self._agenda.say(Level.DEBUG if self.rolls.development else Level.INFO, f"{worker} is up {took}")
            return
        purpose = ", to show the error until the code is mended" if worker.load_failed else ""
        self._agenda.say(self.rolls.quiet_level, f"{worker} is ready {took}{purpose}")
        self.booted = True
        self._boot_failures = 0
        self.waiting.ready(worker.generation)
        self.rolls.ready(worker.generation)

    def exited(self, pid: int, now: float) -> Worker | None:
        """Take note of a child that has been reaped; gives the worker that it was, or None for a stranger."""
        worker = self.workers.pop(pid, None) or self.forking.templates.pop(pid, None)
        if worker is None:
            return None
        if worker.dismissed or (self.stopping is not None and (now >= self.stopping.at or not self.booted)):
            return worker
        if worker.generation == PLACEHOLDER:
            self.waiting.placeholder_failed(now)
            return worker
        essential = not worker.template or self.forking.fork_source is ForkSource.TEMPLATE
        if not worker.was_ready and self.stopping is None and essential:
            self._boot_failed(worker)
        if worker.template:
            self.forking.failed(worker.strikes_after(now), now)
            self._reforks.forget(worker.generation)
        elif worker.generation <= self.rolls.wanted:
            self.vacancies.add(worker.strikes_after(now), now)
        return worker

    def _boot_failed(self, worker: Worker) -> None:
        self._boot_failures += 1
        if self.rolls.development:
            self.rolls.note_failure(worker)  # the next one in its place shows why
        elif not self.booted:
            self.failed = True
            self.stop(Stop.QUICK)
        elif self._boot_failures == self._max_boot_failures:
            self._agenda.say(Level.ERROR, f"{self._boot_failures} boots have failed in a row: giving up")
            self.gave_up = True
            self.stop(Stop.GRACEFUL)
        else:
            self.rolls.boot_failed(worker)

    # Events: what workers say, and what is seen of them

    def load_failed(self, pid: int) -> None:
        """With `development`: the worker could not load its code, and will show that."""
        if self.rolls.development and (worker := self.workers.get(pid)):
            worker.load_failed = True
            self.rolls.note_failure(worker)

    def retry_alone(self, pid: int, now: float) -> bool:
        """Try again without the old code where a worker could not load its own, as an address is in use; whether so."""
        worker = self.workers.get(pid)
        if worker is None or worker.state is not State.BOOTING or not self.rolls.retry_alone(worker):
            return False
        self._dismiss([worker], now)
        return True

    def recycle(self, pid: int, why: str) -> None:
        """The worker is to be replaced when its turn comes: one at a time, its successor first."""
        worker = self.workers.get(pid)
        if worker is not None and not worker.wish:
            worker.wish = why

    def allow(self, pid: int, most: int, memory: int) -> None:
        """The worker may use `most` bytes, and begins with `memory`. One that begins above them would be ended again
        and again: it is replaced once it has grown to twice that, and never killed; but as any other, once it was
        seen below, as one that had no siblings yet to share its memory with."""
        worker = self.workers[pid]
        worker.max_memory = worker.allowed_memory = most
        worker.fatal_memory = HARD * most
        if memory > most:
            worker.allowed_memory, worker.fatal_memory = HARD * memory, math.inf
            uses = f"uses {memory >> 20} MiB as it begins, {most >> 20} are allowed"
            self._agenda.say(Level.WARNING, f"{worker} {uses}: it is replaced above {worker.allowed_memory >> 20}")
        self.weighed(pid, memory)

    def weighed(self, pid: int, memory: int) -> None:
        """A sample of the worker's memory, in bytes; 0 where it could not be taken, as it may be dying."""
        if not memory:
            return
        worker = self.workers[pid]
        worker.memory = memory
        if memory <= worker.max_memory:
            worker.allowed_memory, worker.fatal_memory = worker.max_memory, HARD * worker.max_memory
        worker.samples_above = worker.samples_above + 1 if memory > worker.allowed_memory > 0 else 0
        if worker.samples_above >= SAMPLES:
            self.recycle(pid, f"it uses {memory >> 20} MiB, {worker.allowed_memory >> 20} are allowed")

    def answered(self, pid: int, requests: int) -> None:
        """Take note of how many requests the worker has answered by now."""
        self.workers[pid].answered = requests

    def debugging(self, pid: int) -> None:
        """Never judge the worker late again, as somebody debugs it."""
        if pid in self.workers:
            self.workers[pid].debugging = True

    def sealed(self, pid: int) -> None:
        """The worker has said that it gives nothing into the hand-off queue any more."""
        if pid in self.workers and self.workers[pid].closing is Closing.SEALING:  # else it is told to finish already
            self.workers[pid].closing = Closing.SEALED

    def overslept(self, missed: float, promises: Mapping[int, float]) -> None:
        """Grant all the seconds for which the arbiter itself was stopped: nobody could be heard meanwhile."""
        for worker in self.children.values():
            worker.hear(promises.get(worker.pid, math.inf))
            worker.overslept(missed)
        self.forking.overslept(missed)

    # Events: what the operator wants

    def hold(self, now: float) -> None:
        """With `development`: all code so far is out of date, and nothing more is answered by it; `reload` follows."""
        self.waiting.begin(self.rolls.newest, now)

    def reload(self) -> None:
        """Wish for new code: at most one roll runs, and at most one more waits."""
        if self.stopping is None:
            self.parked = False
            self.rolls.wish()

    def configure(self, graceful_timeout: float, max_boot_failures: int) -> None:
        """Go by new settings from now on."""
        self.graceful_timeout = graceful_timeout
        self._max_boot_failures = max_boot_failures

    def resize(self, by: int) -> None:
        """Want `by` workers more, or fewer where it is negative; never less than one."""
        self.size = max(1, self.size + by)
        self._agenda.say(Level.INFO, f"{self.size} worker{'s' * (self.size > 1)} wanted")

    def park(self) -> None:
        """Retire all workers and keep the sockets, until a reload."""
        self.parked = True
        self.rolls.end(Ending.STOPPED)
        self.rolls.wished = False
        self.vacancies.clear()

    def stop(self, how: Stop, at: float = 0.0) -> bool:
        """End the server, from `at` on; a graceful stop can be hastened, never slowed. Whether that is news."""
        if self.stopping is None:
            self.stopping = Shutdown(how, at)
        elif how > self.stopping.how:
            self.stopping.how, self.stopping.at = how, at
        else:
            return False
        self.rolls.end(Ending.STOPPED)  # what serves now serves until then
        return True

    # Looking

    @property
    def children(self) -> dict[int, Worker]:
        """Workers and templates by pid."""
        return self.workers | self.forking.templates

    @property
    def ended(self) -> bool:
        """Stopped, and the last worker is gone, with none to come in its place."""
        return self.stopping is not None and not (self.children or self.forking.orders or self.vacancies)

    @property
    def calm(self) -> bool:
        """No roll runs or waits, nobody is being killed, and no end is near."""
        killing = any(worker.state in (State.ABORTED, State.KILLED) for worker in self.children.values())
        busy = self.rolls.current or self.rolls.wished or self.stopping or killing or self.forking.orders
        return self.booted and not busy

    @property
    def wake_at(self) -> float:
        """When the next plan is due if no event comes before, in monotonic seconds."""
        return self._agenda.wake_at

    # The plan

    def plan(self, now: float, promises: Mapping[int, float]) -> list[Action]:
        """The actions to perform now. `promises` gives, by pid, when each worker may be judged late."""
        self._agenda.wake_at = math.inf
        self._judge(now, promises)
        if self.stopping is not None and now >= self.stopping.at:
            self.vacancies.clear()
            self.stopping.plan(self.workers.values(), self.graceful_timeout, now, self._agenda)
            self._close_templates(now)
        elif self.stopping is not None:
            self._agenda.wake(self.stopping.at)
            if self.booted and not self.parked:
                self._plan_births(now)  # whoever dies before that is replaced
        elif self.parked:
            self._dismiss([worker for worker in self.workers.values() if worker.is_active], now)
            self._close_templates(now)
        else:
            self._plan_service(now)
        for worker in self._judged():
            self._agenda.wake(worker.deadline)
        return self._agenda.close()

    def _plan_service(self, now: float) -> None:
        workers = self.workers.values()
        if self.rolls.development:
            self.waiting.plan(self._active(), self.booted, now)
        if self.rolls.turn(workers, self.size, self.booted, self.waiting.since, now):
            self.vacancies.clear()  # the new code deserves a try at once
            self.forking.hurry()
        self._plan_births(now)
        self._plan_retirements(now)
        self._reforks.plan(workers, self.size, now)
        if self.rolls.development:
            self.waiting.plan_placeholder(workers, self.graceful_timeout, now)

    def _judged(self) -> list[Worker]:
        return [each for each in self.children.values() if each.is_judged(self.stopping is not None)]

    def _judge(self, now: float, promises: Mapping[int, float]) -> None:
        for worker in self.children.values():
            worker.hear(promises.get(worker.pid, math.inf))
        for worker in self._judged():
            if verdict := worker.judge(now, self.stopping is not None):
                self._agenda.do(verdict)
        self.forking.judge(now)

    def _active(self) -> list[Worker]:
        """The workers that serve or are going to; the first are the first to go."""
        active = [worker for worker in self.workers.values() if worker.is_active and worker.generation != PLACEHOLDER]
        return sorted(active, key=lambda w: (w.generation, w.pid != self._recycling, w.born, w.slot))

    def _dismiss(self, workers: list[Worker], now: float) -> None:
        for worker in workers:
            worker.dismiss(self.graceful_timeout, now)
            self._agenda.do(Retire(worker.pid))

    def _close_templates(self, now: float) -> None:
        """After the workers, which may use processes that the import has started."""
        if not self.workers:
            self.forking.close(now)

    def _plan_births(self, now: float) -> None:
        """Fill what is short, as far as somebody can fork it."""
        self.forking.plan(self.workers.values(), now)
        generation, parent = self.forking.find_parent()
        if parent is None or generation <= self.waiting.stale:
            return  # a template boots, or newer code is about to be imported
        if self.rolls.alone and any(PLACEHOLDER < each.generation < generation for each in self.workers.values()):
            return
        ordered = sum(not order.template for order in self.forking.orders)
        for strikes in self.vacancies.take(self._count_wanted(generation) - ordered, now):
            self.forking.order(Spawn(self.forking.free_slot(self.workers.values()), generation, strikes, parent), now)

    def _count_wanted(self, generation: int) -> int:
        """How many of `generation` are short; a roll adds its canary, then a few at a time, beyond the number."""
        active, roll = self._active(), self.rolls.current
        wanted = self.size - len(active)
        if roll is None:
            return wanted + self._next_to_recycle(active)
        new = [worker for worker in active if worker.generation == generation]
        booting = sum(worker.state is State.BOOTING for worker in new)
        tried = any(worker.generation == generation for worker in self.workers.values())  # its end is awaited, then
        missing = self.size - len(new) if roll.canary_ready else int(not tried)
        # As Kubernetes' maxSurge: a quarter more than the number, at least one. All at once with --reload, whose old
        # workers only wait
        surge = self.size if self.rolls.development else max(1, self.size // 4)
        return max(wanted, min(missing, surge - booting))

    def _next_to_recycle(self, active: list[Worker]) -> int:
        """Whether one more is wanted, to take the place of a worker that is to go; one at a time."""
        wishing = [worker for worker in active if worker.wish]
        if not wishing:
            return 0
        if self._recycling not in self.workers or self.workers[self._recycling].dismissed:
            self._recycling = wishing[0].pid
            self._agenda.say(Level.INFO, f"{wishing[0]} is being replaced: {wishing[0].wish}")
        return 1

    def _plan_retirements(self, now: float) -> None:
        """Retire the oldest beyond the wanted number once enough are READY, and whoever boots for no purpose."""
        active, roll, wanted = self._active(), self.rolls.current, self.rolls.wanted
        ready = [worker for worker in active if worker.serves]
        surplus = ready[: max(0, len(ready) - self.size)]
        if self.rolls.development and (roll is None or roll.canary_ready or self.rolls.alone):
            surplus = [worker for worker in ready if worker.generation < wanted] or surplus
        for worker in active:
            if worker.state is State.BOOTING and (
                worker.generation > wanted
                or (worker.generation < wanted and len(ready) >= self.size)
                or worker.generation <= self.waiting.stale
            ):
                surplus.append(worker)
        self._dismiss(surplus, now)
