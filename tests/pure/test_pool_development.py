"""The arbiter's mind with --reload: old code answers nothing, new code that fails shows itself."""

from pools import make_pool

from minicorn.pool.actions import Drain, Excuse, Hold, Kill, Level, Retire, Say, Spawn
from minicorn.pool.backoff import BACKOFF_FIRST
from minicorn.pool.life import PLACEHOLDER, State
from minicorn.pool.rolls import TRIES
from minicorn.pool.shutdown import Stop
from minicorn.pool.waiting import IMPORT_PATIENCE


class World:
    """A pool and a clock."""

    def __init__(self, size: int = 1) -> None:
        self.pool = make_pool(size, development=True)
        self.now = 100.0
        self.pid = 0

    def plan(self, after: float = 0.0) -> list[object]:
        """What the pool wants done; forks are done at once."""
        self.now += after
        actions = self.pool.plan(self.now, {})
        for action in actions:
            if isinstance(action, Spawn):
                self.pid += 1
                self.pool.spawned(action, self.pid, self.now)
        return actions

    def serve(self) -> None:
        """All that boots is ready."""
        for worker in self.pool.workers.values():
            if worker.state is State.BOOTING:
                self.pool.ready(worker.pid, self.now)

    def spawned(self, actions: list[object]) -> list[int]:
        return [action.generation for action in actions if isinstance(action, Spawn)]


def serving(size: int = 1) -> World:
    world = World(size)
    world.plan()
    world.serve()
    world.plan()
    return world


def test_with_the_first_change_old_workers_hold_and_nothing_is_forked_yet() -> None:
    world = serving(2)
    world.pool.hold(world.now)
    actions = world.plan()
    assert [action for action in actions if isinstance(action, Hold)] == [Hold(1), Hold(2)]
    assert not world.spawned(actions)
    assert not world.plan(1.0)


def test_a_worker_that_dies_after_the_first_change_is_not_replaced_by_old_code() -> None:
    world = serving(2)
    world.pool.hold(world.now)
    world.pool.exited(1, world.now)
    assert not world.spawned(world.plan())


def test_one_fewer_is_one_fewer() -> None:
    world = serving(2)
    world.pool.resize(-1)
    assert Retire(1) in world.plan()


def test_the_old_retire_all_at_once_as_soon_as_one_new_is_ready() -> None:
    world = serving(3)
    world.pool.hold(world.now)
    world.plan()
    world.pool.reload()
    assert world.spawned(world.plan()) == [2]
    world.serve()
    actions = world.plan()
    assert {action.pid for action in actions if isinstance(action, Retire)} == {1, 2, 3}
    assert world.spawned(actions) == [2, 2]


def test_one_line_tells_how_long_somebody_waited_for_new_code_and_what_is_old_may_still_finish() -> None:
    world = World()
    world.plan()
    world.serve()
    assert Say(Level.INFO, "worker 1 (slot 1, gen 1) is ready after 0.000 s") in world.plan()
    world.pool.hold(world.now)
    world.plan(1.5)
    world.pool.reload()
    world.plan(0.5)
    world.serve()
    said = [action for action in world.plan() if isinstance(action, Say) and action.level > Level.DEBUG]
    assert said == [Say(Level.INFO, "Reloaded in 2.00 s (generation 2)")]
    assert world.pool.workers[1].state is State.RETIRING


def test_a_change_while_new_code_boots_ends_that_boot() -> None:
    world = serving()
    world.pool.hold(world.now)
    world.pool.reload()
    world.plan()
    world.pool.hold(world.now)
    actions = world.plan()
    assert Retire(2) in actions and Hold(2) not in actions
    world.pool.reload()
    actions = world.plan()
    assert world.spawned(actions) == [3]
    assert all(action.level is Level.DEBUG for action in actions if isinstance(action, Say))
    assert any(isinstance(action, Kill) and action.pid == 2 for action in world.plan(0.2))


def test_a_change_during_the_very_first_boot_is_a_roll() -> None:
    world = World()
    world.plan()
    world.pool.hold(world.now)
    world.pool.reload()
    actions = world.plan()
    assert Retire(1) in actions
    assert world.spawned(actions) == [2]


def test_a_first_boot_that_fails_ends_nothing_and_is_tried_again() -> None:
    world = World()
    world.plan()
    world.pool.exited(1, world.now)
    assert not world.pool.failed
    assert world.spawned(world.plan(BACKOFF_FIRST)) == [1]


def test_a_worker_of_new_code_that_dies_in_its_boot_is_replaced_by_one_of_the_same() -> None:
    world = serving()
    world.pool.hold(world.now)
    world.pool.reload()
    world.plan()
    world.pool.exited(2, world.now)
    assert world.spawned(world.plan()) == [2]
    world.serve()  # it shows why
    assert Say(Level.WARNING, "The error is shown to whoever asks, until the code is mended") in world.plan()


def test_who_waits_is_told_after_a_while_and_once() -> None:
    world = serving()
    world.pool.hold(world.now)
    world.pool.reload()
    world.plan()
    assert world.pool.wake_at <= world.now + IMPORT_PATIENCE
    actions = world.plan(IMPORT_PATIENCE)
    assert Excuse(1) in actions and not world.spawned(actions)
    assert Excuse(1) not in world.plan(1.0)


def test_new_code_that_is_out_of_date_as_it_is_ready_answers_nobody_either() -> None:
    world = serving()
    world.pool.hold(world.now)
    world.pool.reload()
    world.plan()
    world.pool.hold(world.now)
    world.serve()
    assert Hold(2) in world.plan()
    assert Excuse(2) in world.plan(IMPORT_PATIENCE)


def test_who_is_debugged_is_never_late() -> None:
    world = serving()
    world.pool.debugging(1)
    assert not world.pool.plan(world.now + 1000, {1: world.now})
    world.pool.hold(world.now)
    world.pool.reload()
    world.plan()
    world.serve()
    assert Retire(1) in world.plan()
    assert not any(isinstance(action, Kill) for action in world.plan(1000.0))
    world.pool.stop(Stop.GRACEFUL, world.now)
    assert any(isinstance(action, Kill) and action.pid == 1 for action in world.plan(1000.0))


def test_a_stop_while_old_code_holds_ends_all() -> None:
    world = serving()
    world.pool.hold(world.now)
    world.plan()
    world.pool.stop(Stop.GRACEFUL, world.now)
    world.plan()
    world.pool.sealed(1)
    world.plan()
    world.pool.exited(1, world.now)
    assert world.pool.ended


def test_a_worker_that_is_born_after_the_others_were_told_to_finish_is_told_as_well() -> None:
    world = serving()
    world.pool.hold(world.now)
    world.pool.reload()
    (order,) = [action for action in world.pool.plan(world.now, {}) if isinstance(action, Spawn)]
    world.pool.stop(Stop.GRACEFUL, world.now)
    world.plan()
    world.pool.sealed(1)
    assert Drain(1) in world.plan()
    world.pool.spawned(order, 7, world.now)
    assert Drain(7) in world.plan()


def test_a_placeholder_tells_those_who_wait_for_a_slow_first_import_and_goes_when_it_is_done() -> None:
    world = World(2)
    assert world.spawned(world.plan()) == [1, 1]
    assert world.spawned(world.plan(IMPORT_PATIENCE)) == [PLACEHOLDER]
    assert not world.spawned(world.plan(0.1))
    world.pool.ready(3, world.now)
    assert not world.pool.booted
    assert not world.spawned(world.plan(100.0))
    world.pool.ready(1, world.now)
    assert Retire(3) in world.plan()
    assert not world.plan()


def test_a_placeholder_takes_nobodys_place() -> None:
    world = World()
    world.plan()
    world.plan(IMPORT_PATIENCE)
    world.pool.ready(2, world.now)
    world.pool.exited(1, world.now)
    assert world.spawned(world.plan(BACKOFF_FIRST)) == [1]
    world.pool.hold(world.now)
    world.pool.reload()
    assert world.spawned(world.plan()) == [2]
    world.serve()
    assert Retire(2) in world.plan()


def test_a_placeholder_that_dies_is_not_replaced_at_once() -> None:
    world = World()
    world.plan()
    world.plan(IMPORT_PATIENCE)
    world.pool.exited(2, world.now)
    assert not world.plan()
    assert world.spawned(world.plan(IMPORT_PATIENCE)) == [PLACEHOLDER]


def test_a_placeholder_comes_where_all_that_was_held_has_died() -> None:
    world = serving()
    world.pool.hold(world.now)
    world.pool.reload()
    world.plan()
    world.pool.exited(1, world.now)
    assert world.spawned(world.plan(IMPORT_PATIENCE)) == [PLACEHOLDER]


def test_a_placeholder_ends_with_the_server() -> None:
    world = World()
    world.plan()
    world.plan(IMPORT_PATIENCE)
    world.pool.ready(2, world.now)
    world.pool.stop(Stop.GRACEFUL, world.now)
    world.plan()
    for pid in (1, 2):
        world.pool.exited(pid, world.now)
    assert world.pool.ended


def test_code_that_finds_an_address_in_use_is_tried_again_when_the_old_has_gone() -> None:
    world = serving()
    for old, new in ((1, 2), (3, 4)):
        world.pool.hold(world.now)
        world.pool.reload()
        first = world.spawned(world.plan())
        if old == 1:  # from then on the old goes first
            assert world.pool.retry_alone(new, world.now)
            world.pool.exited(new, world.now)
            actions = world.plan()
            assert Retire(old) in actions
            first = world.spawned(actions)
        assert not first
        world.pool.exited(old, world.now)
        assert world.spawned(world.plan()) == [world.pool.rolls.wanted]
        world.serve()
        world.plan()


def test_an_address_in_use_at_the_first_boot_is_nobodys_old_code() -> None:
    world = World()
    world.plan()
    assert not world.pool.retry_alone(1, world.now) and not world.pool.retry_alone(99999, world.now)
    world.pool.exited(1, world.now)
    world.pool.hold(world.now)
    world.pool.reload()
    world.plan()
    assert world.pool.retry_alone(2, world.now) and not world.pool.retry_alone(2, world.now)


def test_an_address_that_others_use_is_tried_a_few_times() -> None:
    world = serving()
    world.pool.hold(world.now)
    world.pool.reload()
    tried = 0
    while world.spawned(world.plan()) or 1 in world.pool.workers:
        if world.pid in world.pool.workers and world.pid > 1:
            if not world.pool.retry_alone(world.pid, world.now):
                break
            tried += 1
            world.pool.exited(world.pid, world.now)
        else:
            world.pool.exited(1, world.now)
    assert tried == TRIES
