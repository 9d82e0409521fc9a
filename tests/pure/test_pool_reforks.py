"""The arbiter's mind with reforks: who is promoted, when, and what becomes of it when something else happens."""

import pytest
from test_pool_templates import Forking

from minicorn.pool.actions import Level, Say, Spawn
from minicorn.pool.forking import TEMPLATE_SLOT, ForkSource
from minicorn.pool.life import State


class Forest(Forking):
    """Workers answer requests, and fork a template of their like in 50 ms, unless they refuse."""

    def __init__(self, size, *after, **options):
        super().__init__(size, refork_after=after, **options)
        self.unfit = ()  # pids of workers that refuse
        self.silent = False  # promoted workers are busy, and neither fork nor refuse yet
        self.run(2)
        self.fewest_ready = size

    def fork(self, action):
        promoted = action.template and action.parent
        if promoted and self.silent:
            return
        if promoted and action.parent in self.unfit:
            self.pool.spawn_failed(action, "it has threads", self.now)
            return
        super().fork(action)
        if promoted:
            self.due[self.next_pid - 1] = [(self.now + 0.05, "exit" if self.broken else "ready")]

    def answer(self, *counts):
        """Requests that the serving workers have answered, the oldest first; then time passes."""
        for worker, count in zip(sorted(self.ready(), key=lambda worker: worker.pid), counts, strict=False):
            self.pool.answered(worker.pid, count)
        self.run(2)

    def promoted(self):
        return [spawn for spawn in self.done(Spawn) if spawn.template and spawn.parent]

    def built(self):
        return [spawn.generation for spawn in self.done(Spawn) if spawn.template and not spawn.parent]


def test_the_warmest_worker_is_promoted_and_all_come_from_its_template():
    world = Forest(3, 100)
    second = sorted(world.pool.workers)[1]
    world.answer(99, 99, 99)
    assert world.promoted() == []
    world.answer(100, 120, 99)
    assert world.promoted() == [Spawn(TEMPLATE_SLOT + 1, 2, parent=second, template=True)]
    assert world.generations() == [2, 2, 2]
    assert world.templates() == [2]
    assert world.fewest_ready == 3
    assert world.built() == [1]
    assert any(f"worker {second} (slot 2, gen 1) is promoted after 120 requests" in text for text in world.said)


def test_each_number_counts_once_and_after_the_last_there_is_rest():
    world = Forest(2, 10, 50)
    world.answer(10, 0)
    world.answer(49, 49)
    assert world.generations() == [2, 2]
    world.answer(50, 0)
    assert world.generations() == [3, 3]
    world.answer(1000, 1000)
    assert world.generations() == [3, 3]
    assert len(world.promoted()) == 2


def test_without_numbers_nobody_is_promoted():
    world = Forest(2)
    world.answer(10**6, 10**6)
    assert world.promoted() == []


def test_a_worker_that_refuses_is_left_another_asked_and_it_is_told_once():
    world = Forest(3, 100)
    first, second, third = sorted(world.pool.workers)
    world.unfit = (first, second)
    world.answer(120, 110, 99)
    assert [spawn.parent for spawn in world.promoted()] == [first, second]
    assert world.generations() == [1, 1, 1] and world.pool.rolls.current is None
    assert [text for text in world.said if "not promoted" in text and str(first) in text] == [
        f"worker {first} (slot 1, gen 1) is not promoted to template: it has threads"
    ]
    world.answer(219, 209, 100)
    assert [spawn.parent for spawn in world.promoted()] == [first, second, third]
    levels = [say.level for say in world.done(Say) if "not promoted" in say.text]
    assert levels == [Level.WARNING, Level.DEBUG]
    assert world.generations() == [2, 2, 2]  # the number of a roll that was not is given again


def test_who_has_refused_is_asked_again_after_as_many_requests():
    world = Forest(1, 100)
    world.unfit = tuple(world.pool.workers)
    world.answer(150)
    world.answer(249)
    assert len(world.promoted()) == 1
    world.unfit = ()
    world.answer(250)
    assert world.generations() == [2]


def test_a_refusal_counts_for_nothing_when_its_number_is_given_to_new_code():
    world = Forest(1, 10)
    world.unfit = tuple(world.pool.workers)
    world.answer(10)
    world.pool.reload()
    world.run(5)
    assert world.generations() == [2]
    world.answer(10)
    assert world.generations() == [3]


def test_a_reload_begins_with_the_first_number_again():
    world = Forest(2, 10, 50)
    world.answer(10, 0)
    world.pool.reload()
    world.run(5)
    assert world.generations() == [3, 3] and world.built() == [1, 3]
    world.answer(10, 0)
    assert world.generations() == [4, 4]


@pytest.mark.parametrize("later", [0.5, 5])
def test_a_reload_does_not_wait_for_a_worker_that_is_asked(later):
    world = Forest(2, 10)
    world.silent = True
    world.answer(10, 0)
    world.perform()
    assert world.pool.rolls.current.promoted and world.built() == [1]
    world.pool.reload()
    world.run(later)
    (late,) = (order for order in world.pool.forking.orders if order.parent)
    world.pool.spawn_failed(late, "it has threads", world.now)
    world.run(5)
    assert world.generations() == [3, 3]
    assert world.built() == [1, 3]
    world.pool.reload()
    world.run(5)
    assert world.generations() == [4, 4]


def test_a_reload_overrules_a_refork_under_way():
    world = Forest(4, 10)
    world.finish = 30
    world.pool.answered(min(world.pool.workers), 10)
    world.run(0.1)
    assert world.pool.rolls.current.promoted
    world.pool.reload()
    world.run(60)
    assert world.generations() == [3, 3, 3, 3] and world.templates() == [3]
    assert world.fewest_ready == 4


def test_a_refork_is_no_roll_that_an_operator_has_asked_for():
    world = Forest(2, 10)
    world.answer(10, 0)
    assert world.generations() == [2, 2]
    assert world.pool.rolls.last is None and world.pool.rolls.wishes == 0


def test_a_promoted_template_that_dies_at_birth_leaves_all_as_it_was():
    world = Forest(2, 10)
    world.broken = True
    world.pool.answered(min(world.pool.workers), 10)
    world.run(1)
    assert world.generations() == [1, 1] and world.templates() == [1]
    assert len(world.promoted()) == 1
    world.broken = False
    world.answer(20, 0)
    assert world.generations() == [3, 3]


@pytest.mark.parametrize("after", [0.07, 5])
def test_a_promoted_template_that_is_killed_is_replaced_by_an_import_and_warm_again(after):
    world = Forest(2, 10)
    world.pool.answered(min(world.pool.workers), 10)
    world.run(after)
    world.die(next(t.pid for t in world.pool.forking.templates.values() if t.generation == 2))
    world.run(5)
    assert world.generations() == [2, 2] and world.templates() == [2] and world.built() == [1, 2]
    world.answer(10, 0)
    assert world.generations() == [3, 3]
    assert world.fewest_ready == 2


def test_a_worker_that_dies_as_it_is_asked_is_replaced():
    world = Forest(2, 10)
    world.silent = True
    first = min(world.pool.workers)
    world.answer(10, 0)
    (asked,) = world.pool.forking.orders
    world.die(first)
    world.pool.spawn_failed(asked, "its template has died", world.now)
    world.run(2)
    assert world.generations() == [1, 1]
    assert not any("not promoted" in text for text in world.said)


def test_nobody_is_promoted_while_others_come_or_go():
    world = Forest(2, 10)
    world.finish = 30
    world.pool.reload()
    world.run(5)
    assert world.generations() == [2, 2] and len(world.pool.workers) == 4
    world.answer(10, 10)
    assert world.promoted() == []
    world.run(30)
    assert len(world.promoted()) == 1


def test_who_is_going_is_not_promoted():
    world = Forest(2, 10)
    world.finish = 30
    first = min(world.pool.workers)
    world.pool.recycle(first, "it has served 100 requests")
    world.run(1)
    world.pool.answered(first, 100)
    world.run(1)
    assert world.pool.workers[first].state is State.RETIRING and world.promoted() == []


def test_nobody_is_promoted_where_templates_are_without_the_application():
    world = Forest(2, 10, fork_source=ForkSource.COMMON)
    world.answer(10, 10)
    assert world.promoted() == []


def test_nobody_is_promoted_while_another_is_ordered():
    world = Forest(2, 10)
    world.deaf = True
    world.pool.recycle(min(world.pool.workers), "it has served 100 requests")
    world.answer(10, 10)
    assert world.promoted() == []


def test_nobody_is_promoted_while_one_backs_off():
    world = Forest(2, 10)
    for _ in range(2):
        world.die(max(world.pool.workers))
        world.perform()
    world.pool.answered(min(world.pool.workers), 10)
    world.perform()
    assert world.promoted() == []


def test_nobody_is_promoted_while_one_is_missing():
    world = Forest(3, 10)
    world.deaf = True  # the template is stuck
    world.die(min(world.pool.workers))
    for worker in world.ready():
        world.pool.answered(worker.pid, 100)
    world.run(1)
    assert [worker.state for worker in world.pool.workers.values()] == [State.READY] * 2
    assert world.promoted() == []
