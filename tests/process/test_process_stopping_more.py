"""More on stopping: what is left to a stopped worker, what cannot be handed over, the first boot, the drain delay."""

import hashlib
import os
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP, SIGTERM

import pytest
from harness import Starter, read, wait_until
from test_process_handoff import ask, is_silent, keep, wait_read
from test_process_stopping import APP, GATED, HELD, STOPPING, accept_queue, begun, check_whole, queue_up, term, took


def test_requests_left_to_a_stopped_worker_are_answered_by_it_when_it_goes_on(start: Starter) -> None:
    """It was idle, so its siblings count on it. They stay busy: nobody else can answer."""
    server = start(APP, "--workers", "2")
    idle, busy = server.workers()
    os.kill(idle, SIGSTOP)
    kept = [keep(server) for _ in range(5)]
    assert {int(ask(connection).text) for connection in kept} == {busy}
    held = server.hold()
    for number, connection in enumerate(kept):
        queue_up(server, connection, f"/word/kept-{number}")
    waiting = [server.send(f"/word/waiting-{number}") for number in range(5)]
    wait_until(lambda: accept_queue(server.port) == 5, "all wait in the accept queue")
    term(server)
    os.kill(idle, SIGCONT)
    check_whole({connection: f"kept-{number} " * 50_000 for number, connection in enumerate(kept)})
    check_whole({connection: f"waiting-{number} " * 50_000 for number, connection in enumerate(waiting)})
    wait_until(lambda: server.workers() == {busy}, "it has gone")
    server.release()
    assert read(held).text == HELD
    assert server.wait() == 0


def test_a_request_that_cannot_be_handed_over_is_answered_by_its_busy_worker(start: Starter) -> None:
    """It is too large, or its body is not there yet."""
    server = start(APP)
    large, half = keep(server), keep(server)
    assert [ask(connection).status for connection in (large, half)] == [200, 200]
    held = server.hold()
    large.request("POST", "/digest", body=b"x" * 50_000)
    half.putrequest("POST", "/digest")
    half.putheader("Content-Length", "8")
    half.endheaders(b"half")
    for connection in (large, half):
        wait_read(server, connection)
    term(server)
    server.release()
    assert read(held).text == HELD
    assert read(large).text == hashlib.sha256(b"x" * 50_000).hexdigest()
    half.send(b"half")
    assert read(half).text == hashlib.sha256(b"halfhalf").hexdigest()
    assert server.wait() == 0


def test_a_worker_whose_readiness_is_not_known_yet_at_term_finishes_what_it_has_accepted(start: Starter) -> None:
    """The arbiter hears of READY and of TERM at the same time, at the first boot."""
    start.write("site_app.py", GATED)
    gate = start.write("gate", "")
    server = start("site_app:app", ready=0)
    wait_until(lambda: len(server.workers()) == 1, "the first worker boots")
    server.wait_log("Listening on")
    server.signal(SIGSTOP)
    gate.unlink()
    held = server.hold()
    waiting = [server.send(f"/word/waiting-{number}") for number in range(5)]
    server.signal(SIGTERM, SIGCONT)
    server.wait_log(STOPPING)
    assert is_silent(held, 1)  # longer than a worker is given that is thought to boot
    server.release()
    check_whole({held: HELD} | {c: f"waiting-{n} " * 50_000 for n, c in enumerate(waiting)})
    assert server.wait() == 0


def test_term_at_the_first_boot_leaves_no_client_waiting(start: Starter) -> None:
    start.write("site_app.py", GATED)
    start.write("gate", "")
    server = start("site_app:app", "--workers", "2", ready=0)
    wait_until(lambda: len(server.workers()) == 2, "they boot")
    waiting = server.send("/")
    assert server.stop() == 0
    with pytest.raises(ConnectionError):
        read(waiting)
    assert not begun(server)


def test_a_worker_that_dies_within_the_drain_delay_is_replaced(start: Starter) -> None:
    server = start(APP, "--drain-delay", "4")
    with took(4):
        term(server)
        (worker,) = server.workers()
        os.kill(worker, SIGKILL)
        assert server.get("/").text != str(worker)
        assert server.wait() == 0


def test_a_reply_within_the_drain_delay_is_its_connections_last(start: Starter) -> None:
    """So nobody sends a next request into the close at its end."""
    server = start("plain:app", "--drain-delay", "60")
    connection = server.send("/")
    assert read(connection).headers["Connection"] != "close"
    server.signal(SIGTERM)
    server.wait_log("SIGTERM: stopping")
    wait_until(lambda: read(server.send("/")).headers["Connection"] == "close", "replies are the last")
    assert server.stop(SIGINT) == 0
