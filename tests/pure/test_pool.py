"""The arbiter's mind against a simulated world with a fake clock: whole disasters in milliseconds."""

import math

import pytest
from pools import make_pool

from minicorn.pool.actions import Abort, Drain, Kill, Level, Quit, Retire, Say, Seal, Spawn
from minicorn.pool.backoff import BACKOFF_MOST, HEALTHY
from minicorn.pool.exits import cause_of
from minicorn.pool.life import QUIT_GRACE, SAMPLES, UNHEARD, Cause, Closing, Exit, State, Worker
from minicorn.pool.rolls import Ending, Rolled
from minicorn.pool.shutdown import UNSEALED, Stop


class World:
    """Processes as the pool imagines them: they boot in `boot` seconds, or fail when `broken`."""

    def __init__(self, size, **options):
        self.pool = make_pool(size, **options)
        self.now = 1000.0
        self.boot = 1.0
        self.finish = 0.1  # how long a retiring worker takes
        self.broken = False
        self.seals = True  # workers answer when they are told to give nothing more to others
        self.crash_after = None  # seconds from READY to a crash of one's own
        self.next_pid = 100
        self.due = {}  # pid -> [(when, what)]
        self.promises = {}
        self.forks = []  # (when, generation)
        self.said = []
        self.actions = []
        self.gone = []
        self.fewest_ready = math.inf

    def perform(self):
        for action in self.pool.plan(self.now, self.promises):
            self.actions.append((self.now, action))
            if isinstance(action, Say):
                self.said.append(action.text)
            elif isinstance(action, Spawn):
                self.fork(action)
            elif isinstance(action, (Retire, Drain)):
                self.due[action.pid] = [(self.now + self.finish, "exit")]
            elif isinstance(action, Seal) and self.seals:
                self.due[action.pid].append((self.now, "sealed"))
            elif isinstance(action, (Kill, Quit, Abort)):
                self.due[action.pid] = [(self.now, "exit")]

    def fork(self, action):
        pid = self.next_pid
        self.next_pid += 1
        self.forks.append((self.now, action.generation))
        self.pool.spawned(action, pid, self.now)
        self.promises[pid] = self.now + 60
        self.due[pid] = [(self.now + self.boot, "exit" if self.broken else "ready")]

    def run(self, seconds):
        """Let time pass in the steps in which things happen."""
        end = self.now + seconds
        while True:
            self.perform()
            if self.pool.ended:
                return
            events = [when for queue in self.due.values() for when, _ in queue]
            self.now = min([end, max(self.now, self.pool.wake_at), *(max(self.now, when) for when in events)])
            if self.now >= end:
                return
            self.happen()

    def happen(self):
        for pid, queue in list(self.due.items()):
            for when, what in list(queue):
                if when > self.now:
                    continue
                queue.remove((when, what))
                if what == "ready":
                    self.pool.ready(pid, self.now)
                    self.promises[pid] = math.inf
                    if self.crash_after is not None:
                        queue.append((self.now + self.crash_after, "exit"))
                elif what == "sealed":
                    self.pool.sealed(pid)
                else:
                    self.die(pid)
        if self.pool.booted and not self.pool.parked and self.pool.stopping is None:
            self.fewest_ready = min(self.fewest_ready, len(self.ready()))

    def die(self, pid):
        del self.due[pid]
        del self.promises[pid]
        self.gone.append(self.pool.exited(pid, self.now))

    def ready(self):
        return [w for w in self.pool.workers.values() if w.state is State.READY]

    def generations(self):
        return sorted(w.generation for w in self.ready())

    def done(self, kind):
        return [action for _, action in self.actions if isinstance(action, kind)]


@pytest.fixture
def world():
    world = World(4)
    world.run(2)
    assert world.generations() == [1, 1, 1, 1]
    world.fewest_ready = math.inf
    return world


def test_all_workers_are_forked_at_once_at_the_start():
    world = World(4)
    world.perform()
    assert world.done(Spawn) == [Spawn(slot, 1) for slot in (1, 2, 3, 4)]
    world.run(2)
    assert "worker 100 (slot 1, gen 1) is ready after 1.000 s" in world.said


def test_a_quiet_pool_plans_nothing(world):
    before = len(world.actions)
    world.run(1000)
    assert world.actions[before:] == []


def test_a_roll_replaces_every_worker_and_capacity_never_falls(world):
    old = set(world.pool.workers)
    world.pool.reload()
    world.run(20)
    assert world.generations() == [2, 2, 2, 2]
    assert old.isdisjoint(world.pool.workers)
    assert world.fewest_ready >= 4
    assert world.pool.rolls.current is None
    assert world.pool.rolls.last == Rolled(2, 1, Ending.DONE)
    assert "rolling to generation 2" in world.said
    assert world.said[-1] == "generation 2 serves: 4 workers replaced in 4.1 s"
    assert all(say.level is Level.INFO for say in world.done(Say))


def test_the_canary_boots_alone(world):
    world.pool.reload()
    world.run(0.5)
    assert [generation for _, generation in world.forks[4:]] == [2]
    assert not world.pool.retry_alone(max(world.pool.workers), world.now)  # which is for --reload


def test_a_roll_never_has_more_than_a_quarter_beyond_the_number_booting():
    world = World(12)
    world.run(2)
    world.finish = 0.0
    world.pool.reload()
    for _ in range(100):
        world.run(0.1)
        assert sum(w.state is State.BOOTING for w in world.pool.workers.values()) <= 3
    assert world.generations() == [2] * 12


def test_ten_hups_within_a_second_make_two_rolls_at_most(world):
    for _ in range(10):
        world.pool.reload()
        world.run(0.1)
    world.run(60)
    assert world.generations() == [3, 3, 3, 3]


def test_hups_without_end_still_complete_rolls(world):
    for _ in range(200):
        world.pool.reload()
        world.run(0.5)
    assert world.pool.rolls.generation > 10
    assert world.fewest_ready >= 4


def test_a_broken_deploy_changes_nothing_for_those_who_serve(world):
    old = set(world.pool.workers)
    world.broken = True
    world.pool.reload()
    world.run(30)
    assert set(world.pool.workers) == old
    assert world.generations() == [1, 1, 1, 1]
    assert len(world.forks) == 5
    assert any("is off" in text for text in world.said)
    assert world.pool.rolls.last == Rolled(2, 1, Ending.FAILED)


@pytest.mark.parametrize("broken", [True, False])
def test_what_becomes_of_an_old_worker_that_boots_says_nothing_of_the_new_code(world, broken):
    world.run(HEALTHY)
    world.boot, world.broken = 0.5, broken
    world.die(min(world.pool.workers))
    world.perform()
    world.boot, world.broken = 1.0, False
    world.pool.reload()
    world.run(0.6)
    assert not world.pool.rolls.current.canary_ready and not world.pool.rolls.current.has_failures
    world.run(20)
    assert world.generations() == [2, 2, 2, 2]


def test_a_hup_during_the_first_boot_waits_for_it():
    world = World(2)
    world.perform()
    world.pool.reload()
    world.run(0.9)
    assert [generation for _, generation in world.forks] == [1, 1]
    world.run(20)
    assert world.generations() == [2, 2]


def test_the_next_hup_after_the_fix_works(world):
    world.broken = True
    world.pool.reload()
    world.run(5)
    world.broken = False
    world.pool.reload()
    world.run(20)
    assert world.generations() == [3, 3, 3, 3]


def test_a_worker_that_dies_after_a_broken_deploy_does_not_end_the_server(world):
    world.broken = True
    world.pool.reload()
    world.run(5)
    world.die(next(iter(world.pool.workers)))
    world.run(60)
    assert world.pool.stopping is None
    assert len(world.ready()) == 3
    world.broken = False
    world.run(BACKOFF_MOST + 2)
    assert len(world.ready()) == 4


def test_a_hup_overtakes_a_roll_that_cannot_go_on(world):
    world.pool.reload()
    world.run(1.5)  # the canary is ready
    world.broken = True
    world.run(20)
    assert world.pool.rolls.current is not None
    assert len(world.ready()) >= 4
    world.broken = False
    world.pool.reload()
    world.perform()
    given_up = Say(Level.WARNING, "roll to generation 2 is given up for a newer one")
    assert given_up in world.done(Say)
    assert world.pool.rolls.last == Rolled(2, 1, Ending.SUPERSEDED)
    world.run(20)
    assert world.generations() == [3, 3, 3, 3]


def test_what_boots_beside_a_failed_canary_is_ended(world):
    world.pool.park()
    world.run(1)
    world.pool.reload()
    world.perform()
    first, *others = (w for w in world.pool.workers.values() if w.generation == 2)
    world.die(first.pid)
    world.perform()
    assert {action.pid for action in world.done(Retire)} >= {w.pid for w in others}
    world.run(10)
    assert len(world.ready()) == 4


def test_a_first_boot_that_fails_ends_the_server():
    world = World(4)
    world.broken = True
    world.run(10)
    assert world.pool.ended and world.pool.failed
    assert len(world.forks) == 4


def test_a_stop_during_the_first_boot_is_no_failure():
    world = World(2)
    world.perform()
    world.pool.stop(Stop.GRACEFUL)
    world.run(10)
    assert world.pool.ended and not world.pool.failed


def test_a_boot_that_fails_before_a_stop_takes_effect_is_no_failure_either():
    world = World(2)
    world.perform()
    world.pool.stop(Stop.GRACEFUL, world.now + 5)
    world.die(100)
    world.perform()
    assert len(world.forks) == 2
    world.die(101)
    assert world.pool.ended and not world.pool.failed  # and there is nobody to wait for until then


def test_a_replacement_that_cannot_boot_while_a_stop_waits_is_no_failure():
    world = World(1, max_boot_failures=1)
    world.run(2)
    world.pool.stop(Stop.GRACEFUL, world.now + 5)
    world.broken = True
    world.die(world.ready()[0].pid)
    assert not world.pool.ended
    world.run(10)
    assert len(world.forks) > 1 and world.pool.ended and not world.pool.gave_up


def test_nothing_is_said_of_a_next_try_once_the_server_stops(world):
    world.die(next(iter(world.pool.workers)))
    world.run(2)
    world.promises[world.next_pid - 1] = world.now
    world.perform()
    assert world.done(Abort)
    world.pool.stop(Stop.GRACEFUL)
    world.run(5)
    assert world.pool.ended and not any("die young" in text for text in world.said)


def test_a_crash_is_answered_at_once(world):
    world.run(HEALTHY)
    world.die(next(iter(world.pool.workers)))
    world.perform()
    assert world.forks[4:] == [(world.now, 1)]


def test_one_more_is_wanted_as_another_dies(world):
    world.run(HEALTHY)
    world.die(next(iter(world.pool.workers)))
    world.pool.resize(+1)
    world.perform()
    assert len(world.forks) == 6


def test_all_workers_killed_at_once_are_all_replaced_at_once(world):
    world.run(HEALTHY)
    for pid in list(world.pool.workers):
        world.die(pid)
    world.perform()
    assert len(world.forks) == 8


def test_a_crash_loop_backs_off_to_one_fork_in_ten_seconds_a_place(world):
    world.crash_after = 0.01
    for worker in list(world.pool.workers.values()):
        world.die(worker.pid)
    world.run(120)
    before = len(world.forks)
    world.run(100)
    assert (len(world.forks) - before) / 4 <= 100 / BACKOFF_MOST
    gaps = [b - a for (a, _), (b, _) in zip(world.forks[4:], world.forks[8:], strict=False)][::4]
    assert gaps == sorted(gaps)


def test_the_time_that_a_boot_takes_makes_nobody_healthy(world):
    world.boot, world.crash_after = HEALTHY + 1, 0.01
    for pid in list(world.pool.workers):
        world.die(pid)
    world.run(300)
    assert any("workers die young: 8 in a row" in text for text in world.said)


def test_the_end_of_a_worker_that_was_replaced_is_a_retirement(world):
    world.pool.reload()
    world.run(20)
    assert [cause_of(worker, Exit(worker.pid, 0), False) for worker in world.gone] == [Cause.RETIRED] * 4


def test_a_healthy_worker_resets_the_back_off(world):
    world.crash_after = 0.01
    for pid in list(world.pool.workers):
        world.die(pid)
    world.run(60)
    world.crash_after = None
    world.run(BACKOFF_MOST + 2 + HEALTHY)
    assert len(world.ready()) == 4
    before = len(world.forks)
    world.die(next(iter(world.pool.workers)))
    world.perform()
    assert len(world.forks) == before + 1


def test_a_hup_does_not_wait_for_the_back_off(world):
    world.broken = True
    for pid in list(world.pool.workers):
        world.die(pid)
    world.run(60)
    assert not world.ready()
    world.broken = False
    world.pool.reload()
    world.run(1.5)
    assert world.ready()


def test_a_fork_that_fails_is_tried_again(world):
    world.run(HEALTHY)
    world.die(next(iter(world.pool.workers)))
    for action in world.pool.plan(world.now, world.promises):
        if isinstance(action, Spawn):
            world.pool.spawn_failed(action, "Resource temporarily unavailable", world.now)
    world.run(5)
    assert len(world.ready()) == 4


def test_forks_that_fail_are_tried_ever_more_slowly_and_told(world):
    for pid in world.pool.workers:
        world.pool.recycle(pid, "it has served 100 requests")
    tries = []
    for _ in range(8):
        for action in world.pool.plan(world.now, world.promises):
            if isinstance(action, Spawn):
                tries.append(world.now)
                world.pool.spawn_failed(action, "Resource temporarily unavailable", world.now)
            elif isinstance(action, Say):
                world.said.append(action.text)
        world.now = world.pool.wake_at
    assert [when - tries[0] for when in tries] == [0, 0, 0.25, 0.75, 1.75, 3.75, 7.75, 15.75]
    assert "cannot start a worker: Resource temporarily unavailable" in world.said


def test_a_worker_that_never_boots_is_killed(world):
    world.run(HEALTHY)
    world.boot = math.inf
    world.die(next(iter(world.pool.workers)))
    world.run(59)
    assert not world.done(Abort)
    world.run(2)
    assert len(world.done(Abort)) == 1


def test_a_late_worker_shows_its_stack_and_dies_two_seconds_later(world):
    pid = next(iter(world.pool.workers))
    world.promises[pid] = world.now + 3
    world.run(2.9)
    assert not world.done(Abort)
    # It survives SIGABRT
    world.now += 0.2
    actions = world.pool.plan(world.now, world.promises)
    (abort,) = (action for action in actions if isinstance(action, Abort))
    assert abort.pid == pid and 0 <= abort.late < 0.2
    assert any(isinstance(action, Spawn) for action in actions)  # nobody waits for its end
    assert not any(isinstance(a, Kill) for a in world.pool.plan(world.now + 1.9, world.promises))
    kills = [a for a in world.pool.plan(world.now + 2.0, world.promises) if isinstance(a, Kill)]
    assert kills == [Kill(pid, "it did not die of SIGABRT")]
    assert not world.pool.plan(world.now + 62, world.promises)  # once: the kernel may take its time
    assert world.pool.exited(pid, world.now).cause is Cause.TIMEOUT


def test_the_plan_says_when_it_is_due_again(world):
    pid = next(iter(world.pool.workers))
    world.promises[pid] = world.now + 7
    world.pool.plan(world.now, world.promises)
    assert world.pool.wake_at == world.now + 7


@pytest.mark.parametrize("heard", [True, False])
def test_nobody_is_late_for_what_the_arbiter_overslept(world, heard):
    pid = next(iter(world.pool.workers))
    world.promises[pid] = world.now + 3
    if heard:
        world.perform()
    world.now += 60
    world.pool.overslept(60, world.promises)
    world.perform()
    assert not world.done(Abort)
    world.run(4)
    assert len(world.done(Abort)) == 1


def test_a_new_promise_ends_the_grant(world):
    pid = next(iter(world.pool.workers))
    world.promises[pid] = world.now + 3
    world.perform()
    world.pool.overslept(60, world.promises)
    world.promises[pid] = world.now + 4
    world.run(5)
    assert len(world.done(Abort)) == 1


def test_a_retiring_worker_is_granted_what_the_arbiter_overslept(world):
    world.finish = math.inf
    world.pool.reload()
    world.run(5)
    assert any(worker.state is State.RETIRING for worker in world.pool.workers.values())
    world.now += 600
    world.pool.overslept(600, world.promises)
    world.run(world.pool.graceful_timeout - 5)
    assert not world.done(Kill)
    world.run(10)
    assert world.done(Kill)


def test_a_retiring_worker_has_the_graceful_timeout_and_no_more():
    world = World(1, graceful_timeout=5.0)
    world.run(2)
    world.finish = math.inf
    world.pool.reload()
    world.run(5)
    assert not world.done(Kill)
    world.run(3)
    (kill,) = world.done(Kill)
    assert kill.reason == "5.0 s after it was asked to retire"
    assert [worker.cause for worker in world.gone] == [Cause.OVERDUE]
    world.run(2)
    assert world.generations() == [2]
    assert not any("die young" in text for text in world.said)


def test_stopping_forks_nothing_and_ends_when_the_last_is_gone(world):
    world.die(next(iter(world.pool.workers)))
    world.pool.stop(Stop.GRACEFUL)
    before = len(world.forks)
    world.run(5)
    assert world.pool.ended
    assert len(world.forks) == before
    assert len(world.done(Drain)) == 3


def test_a_stop_during_a_roll_ends_both_generations(world):
    world.pool.reload()
    world.run(1.5)
    world.pool.stop(Stop.GRACEFUL)
    world.run(10)
    assert world.pool.ended


def test_a_second_term_changes_nothing_and_int_escalates(world):
    world.finish = math.inf
    assert world.pool.stop(Stop.GRACEFUL)
    world.perform()
    assert not world.pool.stop(Stop.GRACEFUL)
    world.run(3)
    assert len(world.done(Drain)) == 4 and not world.done(Quit)
    assert world.pool.stop(Stop.QUICK)
    actions = world.pool.plan(world.now, world.promises)
    assert len([a for a in actions if isinstance(a, Quit)]) == 4
    assert not world.pool.plan(world.now + QUIT_GRACE / 2, world.promises)
    actions = world.pool.plan(world.now + QUIT_GRACE, world.promises)
    assert [a.reason for a in actions if isinstance(a, Kill)] == ["4.0 s after it was asked to stop"] * 4


def test_graceful_does_not_slow_a_quick_stop(world):
    world.pool.stop(Stop.QUICK)
    assert not world.pool.stop(Stop.GRACEFUL)
    assert world.pool.stopping.how is Stop.QUICK


def test_the_queues_are_drained_only_when_nobody_gives_to_them_any_more(world):
    world.seals = False
    world.pool.stop(Stop.GRACEFUL)
    world.run(1)
    told = {action.pid for action in world.done(Seal)}
    assert told == set(world.pool.workers) and not world.done(Drain)
    first, *others = told
    for pid in others:
        world.pool.sealed(pid)
    world.run(1)
    assert not world.done(Drain)
    world.die(first)  # a worker that died gives nothing any more either
    world.run(1)
    assert {action.pid for action in world.done(Drain)} == set(others)


def test_a_late_worker_is_not_waited_for(world):
    pid = next(iter(world.pool.workers))
    world.promises[pid] = world.now
    world.perform()
    world.due[pid] = []  # it hangs
    world.pool.stop(Stop.GRACEFUL)
    others = {worker.pid for worker in world.ready()}
    world.run(0.05)
    assert others <= {action.pid for action in world.done(Drain)}
    assert Seal(pid) not in world.done(Seal)  # it is past all words


def test_nobody_waits_long_for_a_worker_that_does_not_say_that_it_is_sealed(world):
    world.seals = False
    world.pool.stop(Stop.GRACEFUL)
    world.run(world.pool.graceful_timeout * UNSEALED - 0.1)
    assert not world.done(Drain)
    world.run(0.2)
    assert len(world.done(Drain)) == 4


def test_a_worker_that_says_so_later_than_anybody_waits_is_told_nothing_twice(world):
    world.seals, world.finish = False, 100.0
    world.pool.stop(Stop.GRACEFUL)
    world.run(world.pool.graceful_timeout * UNSEALED + 0.1)
    for pid, worker in world.pool.workers.items():
        world.pool.sealed(pid)
        assert worker.closing is Closing.DRAINING
    world.run(1)
    assert len(world.done(Seal)) == len(world.done(Drain)) == 4


def test_a_sample_of_memory_that_could_not_be_taken_leaves_the_last(world):
    pid, worker = next(iter(world.pool.workers.items()))
    world.pool.weighed(pid, 5 << 20)
    world.pool.weighed(pid, 0)
    assert worker.memory == 5 << 20


def test_a_worker_that_was_retiring_already_is_sealed_too(world):
    world.finish = 5.0
    world.pool.reload()
    world.run(2)
    retiring = {w.pid for w in world.pool.workers.values() if w.state is State.RETIRING}
    assert retiring
    world.pool.stop(Stop.GRACEFUL)
    world.perform()
    assert retiring <= {action.pid for action in world.done(Seal)}


def test_a_stop_with_a_delay_serves_until_then(world):
    world.pool.stop(Stop.GRACEFUL, world.now + 5)
    world.run(4.5)
    assert len(world.ready()) == 4
    world.run(3)
    assert world.pool.ended


def test_a_worker_that_wishes_it_is_replaced_by_one_that_is_ready(world):
    wishing = max(world.pool.workers)
    world.pool.recycle(wishing, "it has served 100 requests")
    world.pool.recycle(wishing, "it uses 200 MiB")
    world.run(5)
    assert any("is being replaced: it has served 100 requests" in text for text in world.said)
    world.pool.recycle(wishing, "it is gone already")
    assert wishing not in world.pool.workers
    assert world.generations() == [1, 1, 1, 1]
    assert world.fewest_ready >= 4
    assert len(world.forks) == 5


def test_workers_that_wish_it_all_at_once_go_one_at_a_time(world):
    old = list(world.pool.workers)
    for pid in old:
        world.pool.recycle(pid, "it has served 100 requests")
    for _ in range(100):
        world.run(0.1)
        assert sum(w.state is State.BOOTING for w in world.pool.workers.values()) <= 1
    assert set(old).isdisjoint(world.pool.workers)
    assert len(world.forks) == 8
    assert world.fewest_ready >= 4


def test_the_next_to_be_replaced_does_not_wait_until_the_last_has_finished(world):
    world.finish = 20
    second, first = sorted(world.pool.workers)[-2:]
    for pid in (first, second):
        world.pool.recycle(pid, "it has served 100 requests")
        world.run(3)
        assert world.pool.workers[pid].state is State.RETIRING


def test_a_replacement_boots_for_nothing_when_new_code_is_wanted_unless_one_is_missing(world):
    world.run(HEALTHY)
    world.die(min(world.pool.workers))
    world.perform()
    world.pool.reload()
    world.run(0.5)
    booting = [worker.generation for worker in world.pool.workers.values() if worker.state is State.BOOTING]
    assert booting == [1, 2]
    world.run(30)
    world.pool.recycle(min(world.pool.workers), "it has served 100 requests")
    world.perform()
    world.pool.reload()
    world.perform()
    assert world.done(Retire)[-1].pid == world.next_pid - 2


def test_a_replacement_that_cannot_boot_leaves_the_worker_serving(world):
    wishing = next(iter(world.pool.workers))
    world.broken = True
    world.pool.recycle(wishing, "it has served 100 requests")
    world.run(30)
    assert world.pool.workers[wishing].state is State.READY
    assert len(world.ready()) == 4


def test_memory_above_the_limit_counts_after_several_samples_in_a_row():
    world = World(2)
    world.run(2)
    pid = next(iter(world.pool.workers))
    world.pool.allow(pid, 100 << 20, 90 << 20)
    for memory in [150, 150, 50, *[150] * (SAMPLES - 1)]:
        world.pool.weighed(pid, memory << 20)
        world.run(0.1)
    assert len(world.forks) == 2
    world.pool.weighed(pid, 150 << 20)
    world.run(5)
    assert pid not in world.pool.workers and not world.done(Kill)
    assert any(text.endswith("is being replaced: it uses 150 MiB, 100 are allowed") for text in world.said)


def test_memory_at_twice_the_limit_kills_with_the_reason():
    world = World(2)
    world.run(2)
    pid = next(iter(world.pool.workers))
    world.pool.allow(pid, 100 << 20, 90 << 20)
    world.pool.weighed(pid, 201 << 20)
    world.perform()
    (kill,) = world.done(Kill)
    assert kill == Kill(pid, "it uses 201 MiB, 2 times 100 are the limit")
    assert world.pool.exited(pid, world.now).cause is Cause.MEMORY


def test_a_worker_that_begins_above_its_limit_is_told_of_and_replaced_at_twice_its_size():
    world = World(2)
    world.run(2)
    pid = next(iter(world.pool.workers))
    world.pool.allow(pid, 10 << 20, 100 << 20)
    for memory in (199, 500, 500, 199):
        world.pool.weighed(pid, memory << 20)
    world.run(5)
    assert pid in world.pool.workers
    assert any("uses 100 MiB as it begins, 10 are allowed" in line for line in world.said)
    for _ in range(SAMPLES):
        world.pool.weighed(pid, 201 << 20)
    world.run(5)
    assert pid not in world.pool.workers and not world.done(Kill)


def test_a_worker_that_was_above_its_limit_while_it_shared_with_nobody_is_one_as_any_other():
    world = World(2)
    world.run(2)
    pid = next(iter(world.pool.workers))
    world.pool.allow(pid, 80 << 20, 103 << 20)
    for memory in (26, *[120] * SAMPLES):
        world.pool.weighed(pid, memory << 20)
    world.run(5)
    assert pid not in world.pool.workers and not world.done(Kill)


def test_too_many_failed_boots_in_a_row_give_up_where_that_is_wanted():
    world = World(2, max_boot_failures=3)
    world.run(2)
    world.broken = True
    world.die(next(iter(world.pool.workers)))
    world.run(60)
    assert world.pool.ended and world.pool.gave_up
    assert "3 boots have failed in a row: giving up" in world.said
    assert len(world.forks) == 2 + 3


def test_a_boot_between_failed_ones_begins_the_count_anew():
    world = World(1, max_boot_failures=2)
    world.run(2)
    for _ in range(2):
        world.broken = True
        world.die(world.ready()[0].pid)
        world.run(1.01)
        world.broken = False
        world.run(15)
    assert world.pool.stopping is None and not world.pool.gave_up


def test_the_workers_of_the_image_before_are_taken_over_and_rolled():
    world = World(3)
    for pid, (ready, retiring) in enumerate([(True, False), (True, False), (False, False), (True, True)], start=7):
        heir = Worker(pid, pid, 4, world.now - 50, was_ready=ready, dismissed=retiring)
        world.pool.adopt(heir, world.now)
        world.promises[pid] = math.inf
        world.due[pid] = []
    states = [worker.state for worker in world.pool.workers.values()]
    assert states == [State.READY, State.READY, State.BOOTING, State.RETIRING]
    world.due[9] = [(world.now + 0.5, "ready")]
    world.pool.rolls.generation = world.pool.rolls.newest = 4
    world.pool.booted = True
    world.pool.reload()
    world.run(20)
    assert world.generations() == [5, 5, 5]
    assert set(world.pool.workers) == {10, *(worker.pid for worker in world.ready())}
    world.run(11)  # it has as long as if it had been asked by this image
    assert world.done(Kill) == [Kill(10, "30.0 s after it was asked to retire")]


def test_the_number_of_workers_follows_and_never_falls_below_one(world):
    world.pool.resize(+1)
    world.run(2)
    assert world.said[-2:] == ["5 workers wanted", "worker 104 (slot 5, gen 1) is ready after 1.000 s"]
    assert len(world.ready()) == 5
    for _ in range(10):
        world.pool.resize(-1)
    world.run(2)
    assert "1 worker wanted" in world.said
    assert len(world.ready()) == 1


def test_slots_are_reused_and_never_shared(world):
    for _ in range(5):
        world.pool.reload()
        for _ in range(40):
            world.run(0.25)
            slots = [w.slot for w in world.pool.workers.values()]
            assert len(slots) == len(set(slots))
            assert max(slots) <= 6


@pytest.mark.parametrize("end", [lambda pool: pool.park(), lambda pool: pool.stop(Stop.GRACEFUL)])
def test_a_roll_is_told_as_stopped_when_all_is(world, end):
    world.pool.reload()
    world.run(1.5)
    end(world.pool)
    assert world.pool.rolls.current is None
    assert world.pool.rolls.last == Rolled(2, 1, Ending.STOPPED)


def test_winch_forgets_a_wish_for_new_code(world):
    world.pool.reload()
    world.pool.park()
    assert not world.pool.rolls.wished


def test_winch_retires_all_and_hup_brings_them_back(world):
    world.pool.park()
    world.run(5)
    assert not world.pool.workers and not world.pool.ended
    world.pool.reload()
    world.run(5)
    assert len(world.ready()) == 4


def test_a_delayed_stop_brings_nobody_back_after_winch(world):
    world.finish = 3
    world.pool.park()
    world.perform()
    world.pool.stop(Stop.GRACEFUL, world.now + 5)
    world.run(10)
    assert world.pool.ended and len(world.forks) == 4


def test_a_broken_deploy_after_winch_is_tried_again_with_patience(world):
    world.pool.park()
    world.run(1)
    world.broken = True
    world.pool.reload()
    world.run(60)
    assert world.pool.stopping is None
    world.broken = False
    world.run(BACKOFF_MOST + 2)
    assert len(world.ready()) == 4


def dismissed_canary(world):
    world.pool.reload()
    world.perform()
    canary = next(w for w in world.pool.workers.values() if w.generation == 2)
    world.pool.park()
    world.perform()
    world.due[canary.pid] = []  # it hears nothing while it imports
    return canary


def test_a_worker_that_boots_is_killed_soon_after_it_is_dismissed(world):
    canary = dismissed_canary(world)
    assert canary.pid not in {action.pid for action in world.done(Kill)}
    world.run(1)
    assert Kill(canary.pid, "not needed any more") in world.done(Kill)
    assert canary.cause is Cause.RETIRED


def test_a_boot_that_was_broken_off_is_no_failed_boot():
    world = World(1, max_boot_failures=1)
    world.run(2)
    canary = dismissed_canary(world)
    world.run(1)
    assert canary in world.gone and world.pool.stopping is None


def test_a_worker_that_was_ready_before_it_heard_of_its_dismissal_finishes(world):
    """It may have a client already."""
    canary = dismissed_canary(world)
    world.pool.ready(canary.pid, world.now)
    world.run(world.pool.graceful_timeout - 1)
    assert canary.state is State.RETIRING
    world.run(2)
    assert canary.pid in {action.pid for action in world.done(Kill)}


def test_who_says_that_it_is_ready_as_it_is_killed_never_was(world):
    """Else its end would be told as that of one who served."""
    canary = dismissed_canary(world)
    world.now += UNHEARD
    world.perform()
    assert canary.state is State.KILLED
    world.pool.ready(canary.pid, world.now)
    assert not canary.was_ready


def test_a_strangers_exit_is_nobodys(world):
    assert world.pool.exited(99999, world.now) is None
    world.pool.ready(99999, world.now)  # said by one that has been reaped, as all of these
    world.pool.sealed(99999)
    world.pool.debugging(99999)
    world.pool.load_failed(99999)
    assert len(world.pool.workers) == 4


def test_an_illegal_move_is_a_bug_that_shows_itself(world):
    worker = next(iter(world.pool.workers.values()))
    with pytest.raises(RuntimeError, match="cannot become booting"):
        worker.move(State.BOOTING, world.now)
