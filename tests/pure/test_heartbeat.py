"""Heartbeat pages, and the private directories that they live in."""

import os

import pytest

from minicorn.figures.counters import BOUNDS, NOTHING
from minicorn.figures.heartbeat import SIZE, Activity, Occupant, Page, private_page
from minicorn.pool.life import State
from minicorn.serving.seat import Identity, Seat


@pytest.fixture
def page() -> Page:
    made = private_page()
    made.reset(deadline=160.0, now=100.0)
    return made


# A page


def test_a_new_page_says_that_its_worker_boots(page: Page) -> None:
    beat = page.read()
    assert (beat.activity, beat.requests, beat.deadline, beat.since) == (Activity.BOOTING, 0, 160.0, 100.0)
    assert (beat.request, beat.client) == ("", "")
    assert beat.describe(102.5) == "2.5 s booting"


def test_a_busy_page_says_with_what_for_whom_and_since_when(page: Page) -> None:
    page.begin("GET", "/report", "192.0.2.7", now=110.0, deadline=140.0)
    beat = page.read()
    assert (beat.activity, beat.deadline, beat.since) == (Activity.BUSY, 140.0, 110.0)
    assert (beat.request, beat.client) == ("GET /report", "192.0.2.7")
    assert beat.describe(140.4) == "30.4 s in GET /report for 192.0.2.7"


def test_a_client_without_an_address_is_left_out(page: Page) -> None:
    page.begin("GET", "/", "", now=110.0, deadline=140.0)
    assert page.read().describe(111.0) == "1.0 s in GET /"


def test_an_idle_page_still_names_its_last_request_and_counts_it(page: Page) -> None:
    page.begin("GET", "/report", "192.0.2.7", now=110.0, deadline=140.0)
    page.end(112.0, 125.0, "200 OK", 2.0, 0.0, 0, 0)
    beat = page.read()
    assert (beat.activity, beat.deadline, beat.since) == (Activity.IDLE, 125.0, 112.0)
    assert (beat.requests, beat.request) == (1, "GET /report")
    assert beat.describe(115.0) == "idle for 3.0 s"
    assert page.requests == 1


def test_becoming_idle_counts_no_request(page: Page) -> None:
    page.idle(now=101.0)
    assert (page.read().activity, page.read().since, page.requests) == (Activity.IDLE, 101.0, 0)


def test_a_promise_is_given_and_put_off(page: Page) -> None:
    page.promise(200.0)
    assert page.deadline == 200.0
    page.extend(12.5)
    assert page.read().deadline == 212.5


def test_a_shorter_text_leaves_nothing_of_a_longer_one(page: Page) -> None:
    page.begin("GET", "/a/long/path", "192.0.2.77", now=1.0, deadline=2.0)
    page.begin("GET", "/", "::1", now=1.0, deadline=2.0)
    assert (page.read().request, page.read().client) == ("GET /", "::1")


def test_an_overlong_request_is_cut_and_spoils_nothing_beside_it(page: Page) -> None:
    page.begin("GET", "/" + "r" * SIZE, "192.0.2.77", now=110.0, deadline=140.0)
    beat = page.read()
    assert beat.request.startswith("GET /rrr")
    assert set(beat.request[5:]) == {"r"}
    assert len(beat.request) > 2000
    assert beat.client == "192.0.2.77"
    assert (beat.activity, beat.requests, beat.deadline, beat.since) == (Activity.BUSY, 0, 140.0, 110.0)


def test_text_beyond_latin_1_is_replaced(page: Page) -> None:
    page.begin("GET", "/\xe9€", "€", now=1.0, deadline=2.0)
    assert (page.read().request, page.read().client) == ("GET /\xe9?", "?")


def test_a_reset_forgets_the_worker_before(page: Page) -> None:
    page.begin("GET", "/", "::1", now=1.0, deadline=2.0)
    page.end(2.0, 12.0, "200 OK", 1.0, 0.0, 0, 0)
    page.reset(deadline=500.0, now=400.0)
    fresh = private_page()
    fresh.reset(deadline=500.0, now=400.0)
    assert page.read() == fresh.read()


def test_what_a_request_costs_and_brings_is_counted(page: Page) -> None:
    page.end(1.0, 11.0, "200 OK", took=0.003, waited=0.0001, received=120, sent=4000)
    page.end(2.0, 12.0, "404 Not Found", took=0.3, waited=0.5, received=80, sent=200)
    page.end(3.0, 13.0, None, took=70.0, waited=0.0, received=1, sent=0)
    page.end(4.0, 14.0, "999 Odd", took=0.0, waited=0.5, received=0, sent=0)  # RFC 9110 15: as a 5xx
    page.refused(received=9)
    page.accepted()
    page.given()
    page.taken()
    counted = page.read_counters()
    assert (counted.requests, counted.refused) == (4, 1)
    assert counted.by_status == {"1xx": 0, "2xx": 1, "3xx": 0, "4xx": 1, "5xx": 1, "none": 1}
    assert (counted.received, counted.sent) == (210, 4200)
    assert (counted.accepted, counted.given, counted.taken) == (1, 1, 1)
    assert counted.latency.counts[BOUNDS.index(0.005)] == 1
    assert counted.latency.counts[BOUNDS.index(0.5)] == 1
    assert counted.latency.counts[-1] == 1
    assert counted.latency.total == pytest.approx(70.303)
    assert counted.queue.counts[BOUNDS.index(0.0001)] == 2  # up to and with the bound
    assert counted.queue.count == 4


def test_the_arbiter_writes_whose_page_it_is(page: Page) -> None:
    assert page.read_occupant() == Occupant(0, 0, 0.0, State.BOOTING)
    page.enter(71, 4, 12.5)
    page.live(State.RETIRING)
    assert page.read_occupant() == Occupant(71, 4, 12.5, State.RETIRING)


def test_a_vacated_page_counts_nothing_and_still_says_what_was_done_last(page: Page) -> None:
    page.enter(71, 4, 12.5)
    page.begin("GET", "/last", "::1", now=1.0, deadline=2.0)
    page.end(2.0, 12.0, "200 OK", 1.0, 0.0, 10, 10)
    page.holds(3)
    assert page.connections == 3
    page.vacate()
    assert page.read_occupant().pid == 0
    assert page.read_counters() == NOTHING
    assert page.connections == 0
    assert page.read().request == "GET /last"


def test_a_page_keeps_the_last_error(page: Page) -> None:
    assert page.read_error() == (0.0, "")
    page.erred("the first, which is longer", 5.0)
    page.erred("ValueError: caf\xe9", 6.0)
    assert page.read_error() == (6.0, "ValueError: caf\xe9")
    page.erred("x" * 5000, 7.0)
    assert page.read_error()[1].startswith("xxx")
    assert page.read_counters() == NOTHING


def test_a_time_from_the_future_is_no_negative_duration(page: Page) -> None:
    assert page.read().describe(50.0) == "0.0 s booting"


def test_an_identity_tells_who_answers_and_how_many_came_before(page: Page) -> None:
    identity = Identity(Seat(3, 2, page))
    assert (identity.slot, identity.generation, identity.pid, identity.requests) == (3, 2, os.getpid(), 0)
    page.end(1.0, 11.0, "200 OK", 1.0, 0.0, 0, 0)
    assert identity.requests == 1
    assert repr(identity) == f"<worker 3 gen 2 pid {os.getpid()}>"
