"""What a service manager is told and when, with a clock of the test's own."""

import math

from pools import make_pool

from minicorn.pool.actions import Retire, Spawn
from minicorn.pool.life import Exit
from minicorn.pool.notifier import EXTEND_EVERY, STATUS_EVERY, Notifier, Phase, describe, read_phase
from minicorn.pool.shutdown import Stop

EXTEND = "EXTEND_TIMEOUT_USEC=30000000"


class Clock:
    """A pool whose forks succeed and, where `boots`, become READY at once."""

    def __init__(self, size: int) -> None:
        self.pool = make_pool(size)
        self.now = 0.0
        self.pid = 100

    def step(self, boots: bool = True) -> None:
        self.now += 1
        for action in self.pool.plan(self.now, {}):
            if isinstance(action, Spawn):
                self.pid += 1
                self.pool.spawned(action, self.pid, self.now)
                if boots:
                    self.pool.ready(self.pid, self.now)
            elif isinstance(action, Retire):
                self.pool.exited(action.pid, self.now)


def said(notifier: Notifier, now: float, phase: Phase, text: str = "text") -> list[str]:
    return notifier.turn(now, phase, lambda: text)


def test_ready_is_said_when_the_first_worker_serves_and_not_before() -> None:
    clock = Clock(2)
    assert read_phase(clock.pool) is Phase.BOOTING
    clock.step(boots=False)
    assert read_phase(clock.pool) is Phase.BOOTING
    assert describe(clock.pool, 0, 0.0, "") == "booting 2 workers"
    clock.pool.ready(clock.pid, clock.now)
    assert read_phase(clock.pool) is Phase.SERVING


def test_a_roll_is_a_reload_from_the_wish_to_its_end() -> None:
    clock = Clock(2)
    clock.step()
    clock.pool.reload()
    for _ in range(3):
        assert read_phase(clock.pool) is Phase.RELOADING
        clock.step()
    for _ in range(3):
        clock.step()
    assert read_phase(clock.pool) is Phase.SERVING
    assert clock.pool.rolls.generation == 2


def test_a_roll_to_the_code_that_serves_already_is_no_reload() -> None:
    clock = Clock(2)
    clock.step()
    clock.pool.rolls.promote(clock.now)
    assert read_phase(clock.pool) is Phase.SERVING
    assert "rolling to generation 2" in describe(clock.pool, 0, 0.0, "")


def test_a_roll_that_fails_ends_the_reload_and_stays_in_the_status() -> None:
    clock = Clock(1)
    clock.step()
    clock.pool.reload()
    clock.step(boots=False)
    clock.pool.exited(clock.pid, clock.now)
    assert read_phase(clock.pool) is Phase.SERVING
    text = describe(clock.pool, 0, 0.0, "SyntaxError: invalid syntax")
    assert text.startswith("the roll to generation 2 failed: SyntaxError: invalid syntax; 1 of 1 workers serve")
    clock.pool.reload()
    for _ in range(6):
        clock.step()
    assert "failed" not in describe(clock.pool, 0, 0.0, "SyntaxError: invalid syntax")


def test_a_stop_overrules_and_a_first_boot_that_failed_is_named() -> None:
    clock = Clock(1)
    clock.step()
    clock.pool.reload()
    clock.pool.stop(Stop.GRACEFUL)
    assert read_phase(clock.pool) is Phase.STOPPING
    assert describe(clock.pool, 1, 0.0, "") == "stopping: 1 workers are finishing"
    unborn = Clock(1)
    unborn.step(boots=False)
    unborn.pool.exited(Exit(unborn.pid, 3).pid, 1.0)
    assert describe(unborn.pool, 0, 0.0, "no module") == "the application could not be loaded: no module"


def test_entering_a_phase_is_told_once_with_its_status() -> None:
    notifier = Notifier(0)
    assert said(notifier, 1, Phase.BOOTING, "a") == ["STATUS=a", EXTEND]
    assert said(notifier, 2, Phase.SERVING, "b") == ["READY=1", "STATUS=b"]
    assert said(notifier, 3, Phase.SERVING, "c") == []
    assert said(notifier, 4.5, Phase.RELOADING, "d") == ["RELOADING=1", "MONOTONIC_USEC=4500000", "STATUS=d", EXTEND]
    assert said(notifier, 5, Phase.SERVING, "e") == ["READY=1", "STATUS=e"]
    assert said(notifier, 6, Phase.STOPPING, "f") == ["STOPPING=1", "STATUS=f", EXTEND]


def test_a_status_is_told_now_and_then_and_only_when_it_has_changed() -> None:
    notifier = Notifier(0)
    said(notifier, 0, Phase.SERVING, "a")
    assert said(notifier, STATUS_EVERY - 0.1, Phase.SERVING, "b") == []
    assert said(notifier, STATUS_EVERY, Phase.SERVING, "b") == ["STATUS=b"]
    assert said(notifier, 3 * STATUS_EVERY, Phase.SERVING, "b") == []


def test_a_status_is_one_line() -> None:
    assert said(Notifier(0), 0, Phase.SERVING, "a\nREADY=1")[1] == "STATUS=a READY=1"


def test_time_is_asked_for_again_while_it_boots_rolls_or_drains() -> None:
    for phase in Phase:
        notifier = Notifier(0)
        said(notifier, 0, phase)
        assert (EXTEND in said(notifier, EXTEND_EVERY, phase)) is (phase is not Phase.SERVING)
        assert EXTEND not in said(notifier, EXTEND_EVERY + 0.1, phase)


def test_the_watchdog_is_fed_at_half_its_interval() -> None:
    notifier = Notifier(3.0)
    assert "WATCHDOG=1" in said(notifier, 10, Phase.BOOTING)
    assert notifier.wake_at == 11.5
    assert "WATCHDOG=1" not in said(notifier, 11.4, Phase.BOOTING)
    assert "WATCHDOG=1" in said(notifier, 11.5, Phase.BOOTING)


def test_no_watchdog_no_beat() -> None:
    notifier = Notifier(0)
    assert "WATCHDOG=1" not in said(notifier, 10, Phase.BOOTING)
    assert notifier.wake_at == math.inf
