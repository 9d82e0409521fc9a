"""The arbiter's page: totals that never go back, and where the server stands."""

import mmap
from pathlib import Path

import pytest
from pools import make_pool

from minicorn.figures.counters import NOTHING
from minicorn.figures.heartbeat import private_page
from minicorn.figures.ledger import SIZE, Ledger
from minicorn.pool import standing
from minicorn.pool.actions import Spawn
from minicorn.pool.pool import Pool
from minicorn.pool.rolls import Ending, Rolled
from minicorn.pool.shutdown import Stop
from minicorn.pool.standing import Complaint, Listening, Stage, Standing, from_json, stage_of

FULL = Standing(
    pid=7,
    version="1.2",
    app="main:app",
    title="shop",
    listeners=(Listening("http://127.0.0.1:80", 41), Listening("unix:/run/x", 42)),
    started=5.5,
    stage=Stage.SERVING,
    size=4,
    generation=2,
    rolling=3,
    reloads=2,
    rolled=Rolled(2, 1, Ending.FAILED),
    rolled_at=1e9,
    roll_error="SyntaxError: caf\xe9\n  line 2",
    obeyed={"SIGHUP": 2},
    exits={"timeout": 1},
    errors=(Complaint(1e9, "worker 3 was late"),),
)


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger(mmap.mmap(-1, SIZE))
    made.beat(10.0)
    return made


def test_a_standing_survives_its_document() -> None:
    assert from_json(FULL.to_json()) == FULL
    assert from_json(Standing().to_json()) == Standing()


def test_what_is_told_is_read_and_a_shorter_text_leaves_nothing_of_a_longer_one(ledger: Ledger) -> None:
    ledger.write(FULL)
    assert ledger.standing == FULL
    ledger.write(Standing())
    assert ledger.standing == Standing()
    assert ledger.heard == 10.0


def test_nothing_is_written_where_nothing_is_new(ledger: Ledger) -> None:
    ledger.write(FULL)
    before = ledger.sequence
    ledger.write(from_json(FULL.to_json()))
    assert ledger.sequence == before
    assert before % 2 == 0


def test_a_text_too_long_for_the_page_leaves_what_was_there(ledger: Ledger) -> None:
    ledger.write(FULL)
    ledger.write(Standing(title="x" * SIZE))
    assert ledger.standing == FULL


def test_an_empty_or_strange_page_says_nothing() -> None:
    with pytest.raises(ValueError, match="version"):
        assert Ledger(mmap.mmap(-1, SIZE)).standing


def test_the_longest_texts_that_are_kept_fit(ledger: Ledger) -> None:
    worst = Standing(
        roll_error="\x1b" * standing.TEXT_MOST,
        upgrade_error="\x1b" * standing.TEXT_MOST,
        errors=tuple(Complaint(1e9, "\x1b" * standing.ERROR_MOST) for _ in range(standing.ERRORS_MOST)),
    )
    ledger.write(worst)
    assert ledger.standing == worst


def test_the_counters_of_a_worker_that_has_gone_move_and_the_sum_stays(ledger: Ledger) -> None:
    page = private_page()
    for _ in range(3):
        page.end(1.0, 11.0, "200 OK", 0.1, 0.0, 10, 20)
        total = ledger.counters + page.read_counters()
        before = ledger.sequence
        ledger.fold(page)
        assert ledger.counters + page.read_counters() == total
        assert page.read_counters() == NOTHING
        assert ledger.sequence == before + 2
    assert (ledger.counters.requests, ledger.counters.sent) == (3, 60)


def test_a_file_is_read_by_whoever_maps_it(tmp_path: Path) -> None:
    path = tmp_path / "arbiter"
    path.write_bytes(bytes(SIZE))
    with path.open("r+b") as writing, path.open("rb") as reading:
        ours = Ledger(mmap.mmap(writing.fileno(), SIZE))
        theirs = Ledger(mmap.mmap(reading.fileno(), SIZE, prot=mmap.PROT_READ))
        ours.beat(3.0)
        ours.write(FULL)
        assert (theirs.heard, theirs.standing) == (3.0, FULL)


# The stage and the last roll, from the pool


def ready_pool() -> Pool:
    pool = make_pool(1)
    (spawn,) = (action for action in pool.plan(0.0, {}) if isinstance(action, Spawn))
    pool.spawned(spawn, 100, 0.0)
    assert stage_of(pool) is Stage.BOOTING
    pool.ready(100, 1.0)
    return pool


def test_a_pool_goes_through_its_stages() -> None:
    pool = ready_pool()
    assert stage_of(pool) is Stage.SERVING
    pool.park()
    assert stage_of(pool) is Stage.PARKED
    pool.stop(Stop.GRACEFUL, 99.0)
    assert stage_of(pool) is Stage.DRAINING


def test_a_roll_answers_all_wishes_that_were_heard_as_it_began() -> None:
    pool = ready_pool()
    pool.reload()
    pool.reload()
    actions = pool.plan(2.0, {})
    pool.reload()  # for the next
    (spawn,) = (action for action in actions if isinstance(action, Spawn))
    pool.spawned(spawn, 101, 2.0)
    assert pool.rolls.last is None
    pool.exited(101, 3.0)
    assert pool.rolls.last == Rolled(2, 2, Ending.FAILED)
    pool.plan(3.0, {})
    assert pool.rolls.current is not None and pool.rolls.current.wish == 3
    pool.stop(Stop.GRACEFUL)
    assert pool.rolls.last == Rolled(3, 3, Ending.STOPPED)
