"""What a terminal is shown: lines of a given width, from made-up snapshots."""

import pytest

from minicorn.figures import display
from minicorn.figures.counters import ACCEPTED, GIVEN, NOTHING, RECEIVED, ROWS, SENT, Counters
from minicorn.figures.display import Rates, duration, latency, rates, size
from minicorn.figures.document import document
from minicorn.figures.snapshot import Condition, QueueView, Snapshot, Usage, WorkerView
from minicorn.pool.rolls import Ending, Rolled
from minicorn.pool.standing import Complaint, Listening, Stage, Standing
from minicorn.record import replace


def served(count: int, bucket: int = 5) -> Counters:
    values = list(NOTHING.values)
    values[ROWS["2"] + bucket] = count
    return Counters(tuple(values))


def worker(slot: int, state: Condition = Condition.IDLE, requests: int = 10, cpu: float = 1.0) -> WorkerView:
    usage = Usage(cpu, 9, 2**24, 2**25, 2**23)
    counters = served(requests)
    return WorkerView(slot, 1000 + slot, 2, state, 40.0, 99.0, f"GET /{slot}", "::1", 2, counters, None, usage)


@pytest.fixture
def snapshot() -> Snapshot:
    standing = Standing(
        pid=7,
        version="1.2",
        app="main:app",
        title="shop",
        listeners=(Listening("http://127.0.0.1:80", 1),),
        stage=Stage.SERVING,
        size=3,
        generation=2,
        rolled=Rolled(3, 1, Ending.FAILED),
        rolled_at=900.0,
        roll_error="Traceback\n  line\nValueError: \x1b[31mno",
        exits={"timeout": 2},
        errors=(Complaint(990.0, "worker 5 was late"),),
    )
    workers = (worker(1), worker(2, Condition.BUSY, 30, 3.0), worker(3, Condition.BOOTING, 0))
    queues = (QueueView("http://127.0.0.1:80", 4, 2048),)
    arbiter, template = Usage(0, 9, 2**20, 0, 2**19), Usage(0, 9, 2**21, 0, 2**20)
    return Snapshot(100.0, 99.5, standing, workers, served(5), arbiter, queues, others=(template,))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.25, "250 ms"),
        (12.34, "12.3 s"),
        (60, "1 min"),
        (3600, "1 h 00 min"),
        (86400, "1 d 0 h"),
        (240, "4 min"),
        (3 * 3600 + 720, "3 h 12 min"),
        (190800, "2 d 5 h"),
    ],
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2**20 * 12.3, "12.3 MiB"),
        (2**20 * 100, "100 MiB"),
        (2**30 * 400, "400 GiB"),
        (2**50, "1024 TiB"),
    ],
)
def test_a_size_has_three_figures(amount: float, text: str) -> None:
    assert size(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00012, "0.12 ms"), (0.045, "45 ms"), (0.9999, "1 s"), (1.23, "1.23 s")]
)
def test_a_latency_has_three_figures(seconds: float, text: str) -> None:
    assert latency(seconds) == text


def test_bars_are_as_high_as_their_values() -> None:
    assert display.bars([0, 1, 4, 8], 4) == " ▁▄█"
    assert display.bars([0, 1, 4, 8], 6) == "   ▁▄█"
    assert display.bars([0, 1, 4, 8], 2) == "▄█"
    assert display.bars([0, 0], 2) == "  "
    assert display.bars([], 3) == "   "


def test_status_says_all_of_it(snapshot: Snapshot) -> None:
    text = "\n".join(display.status(snapshot, 1000.0, 120))
    for expected in (
        "shop (main:app), pid 7, minicorn 1.2, up 1 min",
        "serving, generation 2, 2 of 3 workers ready, 1 busy",
        "last roll: to generation 3, failed, 1 min ago",
        "ValueError: .[31mno",
        "workers gone: 2 timeout",
        "requests: 45 (2xx 45), refused 0",
        "accept queue: 4 of 2048",
        "memory: 51.0 MiB in 5 processes, 25.5 MiB of it not shared",
        "16.0 MiB  32.0 MiB   8.0 MiB",
        "last error, 10.0 s ago: worker 5 was late",
        "1.0 s in GET /2 for ::1",
    ):
        assert expected in text
    assert "\x1b" not in text


def test_status_says_what_went_through_and_why_an_upgrade_was_not(snapshot: Snapshot) -> None:
    moved = {RECEIVED: 2048, SENT: 2**20, ACCEPTED: 1234, GIVEN: 56}
    gone = Counters(tuple(moved.get(place, value) for place, value in enumerate(NOTHING.values)))
    folded = replace(snapshot, gone=gone, standing=replace(snapshot.standing, upgrade_error="no module\nmore"))
    text = "\n".join(display.status(folded, 1000.0, 120))
    for expected in (
        "last upgrade: off, no module\n",
        "bytes: 2.0 KiB received, 1.0 MiB sent",
        "connections: 1,234 accepted, 6 open, 56 handed over",
    ):
        assert expected in text


def test_an_arbiter_that_says_nothing_is_told_of(snapshot: Snapshot) -> None:
    assert "not been heard for 20.0 s" in display.condition(replace(snapshot, heard=80.0))
    assert "rolling to generation 3" in display.condition(
        replace(snapshot, standing=replace(snapshot.standing, rolling=3))
    )


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(snapshot: Snapshot, width: int) -> None:
    frame = display.frame([snapshot, snapshot], [Rates()] * 400, "slot", width, 40)
    assert max(map(len, display.table(snapshot, width))) <= width
    assert max(map(len, frame)) <= width


@pytest.mark.parametrize(("room", "text"), [(24, "1.0 s in GET /2 for ::1"), (22, "1.0 s in GET /2")])
def test_a_client_is_named_whole_or_not_at_all(room: int, text: str) -> None:
    assert display.doing(worker(2, Condition.BUSY), 100.0, room) == text


def test_a_frame_is_no_higher_than_the_terminal_and_says_what_is_left_out(snapshot: Snapshot) -> None:
    many = replace(snapshot, workers=tuple(worker(slot) for slot in range(1, 60)))
    frame = display.frame([many, many], [Rates()], "slot", 80, 24)
    assert len(frame) <= 24
    assert any("more" in line for line in frame)


def test_who_is_idle_says_what_came_last_and_who_boots_does_not() -> None:
    assert display.doing(worker(2), 100.0, 40) == "1.0 s since GET /2"
    assert display.doing(replace(worker(2), request=""), 100.0, 40) == "1.0 s"
    assert display.doing(worker(2, Condition.BOOTING), 100.0, 40) == "1.0 s"


def test_a_frame_tells_what_each_does_a_second(snapshot: Snapshot) -> None:
    later = replace(snapshot, now=102.0, workers=(worker(2, Condition.BUSY, 50, 3.5), worker(9, requests=4, cpu=7.0)))
    frame = display.frame([snapshot, later], [Rates(10.0, quantiles=(0.001, 0.25, 0.5))], "slot", 80, 24)
    head = next(at for at, line in enumerate(frame) if line.startswith("SLOT"))
    assert [line.split(maxsplit=7) for line in frame[head + 1 : head + 3]] == [
        ["2", "1002", "2", "busy", "10", "25%", "16.0", "MiB  3.0 s in GET /2 for ::1"],
        ["9", "1009", "2", "idle", "2", "0%", "16.0", "MiB  3.0 s since GET /9"],  # who is new has no CPU to compare
    ]
    assert frame[head - 2].startswith("p95            250 ms  ")


@pytest.mark.parametrize(("sort", "first"), [("slot", 1), ("requests", 3), ("cpu", 2), ("time", 2)])
def test_workers_are_sorted_as_is_wished(snapshot: Snapshot, sort: str, first: int) -> None:
    workers = (worker(1, cpu=1.0), worker(2, Condition.BUSY, cpu=3.0), worker(3, requests=50, cpu=1.0))
    after = replace(snapshot, now=101.0, workers=workers)
    before = replace(
        after, now=100.0, workers=tuple(replace(each, usage=Usage(1.0), counters=served(10)) for each in workers)
    )
    frame = display.frame([before, after], [Rates()], sort, 80, 24)
    head = next(at for at, line in enumerate(frame) if line.startswith("SLOT"))
    assert frame[head + 1].split()[0] == str(first)


def test_a_pace_is_what_came_between_two_looks(snapshot: Snapshot) -> None:
    later = replace(
        snapshot,
        now=102.0,
        workers=(worker(1, requests=30, cpu=2.0), worker(2, requests=30, cpu=3.0), worker(9, requests=4, cpu=0.5)),
    )
    measured = rates(snapshot, later)
    assert measured.requests == 12.0
    assert measured.cpu == pytest.approx(0.75)
    assert measured.quantiles[0] == pytest.approx(0.0035)


def test_a_document_is_what_json_can_say(snapshot: Snapshot) -> None:
    told = document(snapshot)
    assert (told["ready"], told["generation"], told["workers_wanted"]) == (True, 2, 3)
    assert told["last_roll"] == {
        "generation": 3,
        "outcome": "failed",
        "at": 900.0,
        "error": snapshot.standing.roll_error,
    }
    assert told["memory"] == {"processes": 5, "pss": 51 << 20, "private": 51 << 19}
    assert (told["workers"][0]["shared"], told["workers"][0]["private"]) == (2**25, 2**23)


def test_the_names_in_a_document_are_relied_upon(snapshot: Snapshot) -> None:
    told = document(snapshot)
    assert " ".join(told) == (
        "pid version app title listeners stage ready reason age silent workers_wanted generation rolling last_roll "
        "upgrades upgrade_error worker_exits signals totals usage memory accept_queues workers errors"
    )
    assert " ".join(told["totals"]) == (
        "requests by_status refused connections handed_off received_bytes sent_bytes latency_ms latency_counts "
        "latency_bounds queue_ms"
    )
    assert " ".join(told["workers"][1]) == (
        "slot pid generation state age for request client connections requests latency_ms cpu rss pss shared private"
    )
    assert (told["age"], told["silent"], told["listeners"]) == (100.0, 0.5, ["http://127.0.0.1:80"])
    assert (told["workers"][1]["age"], told["workers"][1]["for"], told["workers"][1]["state"]) == (60.0, 1.0, "busy")
    assert told["totals"]["latency_ms"] == {"p50": 3.5, "p95": 4.85, "p99": 4.97}


def test_errors_of_workers_are_among_those_of_the_arbiter_by_their_time(snapshot: Snapshot) -> None:
    errors = [Complaint(at, f"at {at:g}") for at in (995.0, 980.0)]
    workers = tuple(replace(worker(slot), error=error) for slot, error in enumerate(errors, start=1))
    told = replace(snapshot, workers=(*workers, worker(3))).errors
    assert [each.at for each in told] == [980.0, 990.0, 995.0]


def test_a_server_is_ready_when_one_of_its_workers_is(snapshot: Snapshot) -> None:
    assert snapshot.unready == ""
    assert replace(snapshot, workers=()).unready == "no worker is ready"
    for state in Condition:
        unready = "" if state in (Condition.IDLE, Condition.BUSY) else "no worker is ready"
        assert replace(snapshot, workers=(worker(1, state),)).unready == unready
    assert replace(snapshot, standing=replace(snapshot.standing, stage=Stage.DRAINING)).unready == "draining"
