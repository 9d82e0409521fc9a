"""The arbiter's mind with templates: who forks whom, what waits for what, what outlives what."""

import pytest
from test_pool import World

from minicorn.pool.actions import Kill, Retire, Spawn
from minicorn.pool.backoff import BACKOFF_FIRST
from minicorn.pool.forking import ORDER_PATIENCE, TEMPLATE_SLOT, ForkSource
from minicorn.pool.life import State
from minicorn.pool.shutdown import Stop


class Forking(World):
    """Workers come from a template at once; templates take `boot` seconds, as the application's import does."""

    def __init__(self, size, fork_source=ForkSource.TEMPLATE, **options):
        super().__init__(size, fork_source=fork_source, **options)
        self.deaf = False  # orders are not carried out

    def fork(self, action):
        if self.deaf and action.parent:
            return
        super().fork(action)
        if not action.template:
            pid = self.next_pid - 1
            self.due[pid] = [(self.now + (0.004 if action.parent else self.boot), "exit" if self.broken else "ready")]

    def templates(self):
        return sorted(t.generation for t in self.pool.forking.templates.values() if t.state is State.READY)

    def template(self):
        return next(t.pid for t in self.pool.forking.templates.values() if t.state is State.READY)


@pytest.fixture
def world():
    world = Forking(4)
    world.run(2)
    assert world.generations() == [1, 1, 1, 1]
    world.fewest_ready = 4
    return world


def test_workers_wait_for_the_template_and_come_from_it():
    world = Forking(3)
    world.perform()
    assert world.done(Spawn) == [Spawn(TEMPLATE_SLOT, 1, template=True)]
    world.run(2)
    assert f"template {world.template()} (gen 1) is up after 1.000 s" in world.said
    others = world.done(Spawn)[1:]
    assert [(spawn.slot, spawn.parent) for spawn in others] == [(slot, world.template()) for slot in (1, 2, 3)]


def test_a_template_that_fails_at_first_ends_the_server():
    world = Forking(3)
    world.broken = True
    world.run(2)
    assert world.pool.ended and world.pool.failed


def test_a_worker_that_dies_is_replaced_within_the_fork(world):
    world.now += 100
    world.die(world.ready()[0].pid)
    world.run(0.01)
    assert world.generations() == [1, 1, 1, 1]


def test_a_template_that_dies_is_replaced_without_touching_workers(world):
    workers = set(world.pool.workers)
    world.die(world.template())
    world.run(2)
    assert world.templates() == [1]
    assert set(world.pool.workers) == workers


def test_templates_that_die_young_come_back_ever_more_slowly(world):
    for _ in range(2):
        world.die(world.template())
        world.run(1.001)
    assert world.templates() == []
    world.run(BACKOFF_FIRST)
    assert world.templates() == [1]


def test_a_reload_does_not_wait_for_the_back_off(world):
    world.die(world.template())
    world.run(1.001)
    world.die(world.template())
    world.pool.reload()
    world.perform()
    assert world.forks[-1] == (world.now, 2)


def test_a_roll_builds_a_template_and_the_old_one_ends_with_its_last_worker(world):
    world.finish = 3
    world.pool.reload()
    world.run(2)
    assert world.generations() == [2, 2, 2, 2]
    assert world.templates() == [1, 2]
    old = min(world.pool.forking.templates)
    world.run(5)
    assert Retire(old) in world.done(Retire)
    assert world.templates() == [2]
    assert world.fewest_ready == 4


def test_a_template_that_fails_ends_the_roll_and_the_old_code_is_still_forked(world):
    world.broken = True
    world.pool.reload()
    world.run(2)
    assert "roll to generation 2 is off: its template failed to boot; generation 1 serves on" in world.said
    world.broken = False
    world.die(world.ready()[0].pid)
    world.run(0.01)
    assert world.generations() == [1, 1, 1, 1]
    assert world.templates() == [1]


def test_a_canary_that_fails_takes_its_template_with_it(world):
    world.pool.reload()
    world.run(0.5)
    world.broken = True
    world.run(2)
    assert "roll to generation 2 is off: its first worker failed to boot; generation 1 serves on" in world.said
    assert world.templates() == [1]


def test_whoever_dies_while_the_new_template_boots_comes_from_the_old_one(world):
    world.now += 100
    world.pool.reload()
    world.run(0.5)
    world.die(world.ready()[0].pid)
    world.run(0.01)
    assert world.generations() == [1, 1, 1, 1]
    world.run(5)
    assert world.generations() == [2, 2, 2, 2]


def test_a_template_that_forks_nothing_is_killed_and_replaced(world):
    world.now += 100
    stuck = world.template()
    world.deaf = True
    world.die(world.ready()[0].pid)
    world.run(ORDER_PATIENCE - 0.5)
    assert world.done(Kill) == []
    world.now += 0.6
    (kill,) = [action for action in world.pool.plan(world.now, world.promises) if isinstance(action, Kill)]
    assert kill == Kill(stuck, "no worker came of it for 10 s")
    assert not world.pool.plan(world.now + 1, world.promises)
    world.die(stuck)
    world.perform()
    assert world.done(Spawn)[-1].template  # whatever it was told to fork
    world.deaf = False
    for order in list(world.pool.forking.orders):
        if order.parent == stuck:
            world.pool.spawn_failed(order, "its template has died", world.now)
    world.run(2)
    assert world.generations() == [1, 1, 1, 1]


def test_a_template_that_cannot_be_forked_is_tried_ever_more_slowly_and_the_roll_goes_on(world):
    world.pool.reload()
    for _ in range(2):
        (order,) = [action for action in world.pool.plan(world.now, world.promises) if isinstance(action, Spawn)]
        world.pool.spawn_failed(order, "Cannot allocate memory", world.now)
    world.run(BACKOFF_FIRST - 0.01)
    assert "cannot start a template: Cannot allocate memory" in world.said
    assert len(world.done(Spawn)) == 5
    world.run(5)
    assert world.generations() == [2, 2, 2, 2]


def test_a_fork_that_a_template_could_not_do_does_not_end_the_roll(world):
    world.pool.reload()
    world.deaf = True
    world.run(1.5)
    (order,) = world.pool.forking.orders
    world.pool.spawn_failed(order, "Cannot allocate memory", world.now)
    world.deaf = False
    world.run(5)
    assert world.generations() == [2, 2, 2, 2]


def test_an_order_is_granted_what_the_arbiter_overslept_and_awaited_as_the_server_ends(world):
    world.now += 100
    world.deaf = True
    world.die(world.ready()[0].pid)
    world.run(1)
    world.now += 600
    world.pool.overslept(600, world.promises)
    world.run(ORDER_PATIENCE - 2)
    assert world.done(Kill) == []
    world.pool.stop(Stop.GRACEFUL)
    world.run(60)
    assert not world.pool.children and not world.pool.ended
    (order,) = world.pool.forking.orders
    world.pool.spawn_failed(order, "its template has died", world.now)
    world.perform()
    assert world.pool.ended


def test_the_server_ends_with_its_templates(world):
    world.pool.stop(Stop.GRACEFUL)
    world.run(5)
    assert world.pool.ended and not world.pool.forking.templates


def test_parked_is_without_a_template_and_a_reload_brings_one(world):
    world.pool.park()
    world.run(2)
    assert not world.pool.children
    world.pool.reload()
    world.run(5)
    assert world.generations() == [2, 2, 2, 2]
    assert world.templates() == [2]


def test_a_common_template_outlives_rolls_and_nobody_waits_for_it():
    world = Forking(3, fork_source=ForkSource.COMMON)
    world.perform()
    assert sorted(spawn.template for spawn in world.done(Spawn)) == [False, False, False, True]
    assert not any(spawn.parent for spawn in world.done(Spawn))
    world.run(2)
    template = world.template()
    world.pool.reload()
    world.run(3)
    assert world.generations() == [2, 2, 2]
    assert {spawn.parent for spawn in world.done(Spawn) if spawn.generation == 2} == {template}
    world.pool.forking.renew()
    world.perform()
    assert Retire(template) in world.done(Retire) and world.done(Spawn)[-1].template
    world.run(3)
    assert world.template() != template and len(world.templates()) == 1
    world.die(world.template())
    world.run(1.001)
    world.die(world.template())
    world.pool.forking.renew()  # what broke it may have been mended
    world.perform()
    assert world.pool.forking.templates


def test_a_common_template_that_fails_is_nobodys_failure():
    world = Forking(3, fork_source=ForkSource.COMMON)
    world.run(2)
    world.broken = True
    world.die(world.template())
    world.run(20)
    assert world.pool.stopping is None
    assert world.generations() == [1, 1, 1]


def test_nor_is_one_that_fails_before_anybody_serves():
    world = Forking(3, fork_source=ForkSource.COMMON)
    world.perform()
    world.die(next(iter(world.pool.forking.templates)))
    world.run(2)
    assert world.generations() == [1, 1, 1]
