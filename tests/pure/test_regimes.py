"""The settings by generation: those of what serves stay until a worker serves by others."""

from minicorn.arbiter.regimes import Regimes
from minicorn.config.settings import Settings
from minicorn.pool.actions import Agenda
from minicorn.pool.life import Worker
from minicorn.pool.rolls import Ending, Rolls

OLD, NEW, NEWER = Settings(app="old"), Settings(app="new"), Settings(app="newer")


class Server:
    """Rolls without workers: a canary is ready, or has failed, when a test says so."""

    def __init__(self):
        self.rolls = Rolls(Agenda())
        self.regimes = Regimes(OLD, OLD, self.rolls)

    def hup(self, settings, well=True):
        self.regimes.propose(settings)
        self.answer(settings, well)

    def answer(self, settings, well=True):
        if self.regimes.answered(settings, well):
            self.rolls.wish()
        self.follow()

    def follow(self):
        self.rolls.turn([], 1, True, 0.0, 0.0)
        return self.regimes.follow()

    def ready(self):
        self.rolls.ready(self.rolls.newest)

    def fail(self):
        self.rolls.boot_failed(Worker(7, 1, self.rolls.newest, 0.0))

    def lives(self):
        """What serves, and what the newest generation boots with."""
        return self.regimes.serving, self.regimes.of(self.rolls.newest)


def test_new_settings_serve_once_a_worker_serves_by_them():
    server = Server()
    server.hup(NEW)
    assert server.lives() == (OLD, NEW)
    assert server.regimes.of(1) is OLD
    server.ready()
    assert server.follow()
    assert server.lives() == (NEW, NEW)
    assert not server.follow()


def test_of_a_roll_that_is_off_nothing_stays():
    server = Server()
    server.hup(NEW)
    server.fail()
    assert not server.follow()
    assert server.regimes.of(server.rolls.wanted) is OLD
    assert server.regimes.newest is OLD
    server.rolls.wish()  # for new code alone
    server.follow()
    assert server.lives() == (OLD, OLD)


def test_what_waits_for_a_roll_that_fails_is_tried_next():
    server = Server()
    server.hup(NEW)
    server.hup(NEWER)
    assert server.lives() == (OLD, NEW)
    server.fail()
    server.follow()
    assert server.lives() == (OLD, NEWER)


def test_a_roll_that_ends_as_the_next_begins_has_served():
    server = Server()
    server.hup(NEW)
    server.ready()
    server.rolls.end(Ending.SUPERSEDED)
    server.hup(NEWER)
    assert server.lives() == (NEW, NEWER)


def test_an_upgrade_begins_with_a_roll_to_what_it_has_read():
    rolls = Rolls(Agenda())
    regimes = Regimes(OLD, NEW, rolls)
    rolls.wish()
    rolls.turn([], 1, True, 0.0, 0.0)
    regimes.follow()
    assert (regimes.serving, regimes.of(2)) == (OLD, NEW)


def test_what_waits_for_the_first_boot_is_tried_then():
    server = Server()
    server.regimes.propose(NEW)
    assert server.regimes.answered(NEW, True)
    server.rolls.wish()
    server.regimes.follow()
    server.follow()
    assert server.lives() == (OLD, NEW)


def test_a_promotion_is_to_what_serves_and_its_number_may_be_given_again():
    server = Server()
    generation = server.rolls.promote(0.0)
    server.follow()
    assert server.lives() == (OLD, OLD)
    server.rolls.withdraw(generation)
    server.hup(NEW)
    assert server.rolls.newest == generation
    assert server.lives() == (OLD, NEW)


def test_on_reload_is_heard_on_the_last_that_was_proposed_alone():
    server = Server()
    server.regimes.propose(NEW)
    server.hup(NEWER)
    assert not server.regimes.answered(NEW, True)
    assert server.lives() == (OLD, NEWER)
    server.regimes.propose(NEW)
    assert server.regimes.newest is NEW
    server.answer(NEW, well=False)
    assert server.regimes.newest is NEWER
