"""Stopping under load, and leaving well: what was asked is answered, what hangs is cut and named."""

import contextlib
import http.client
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM

import psutil
import pytest
from harness import Server, Starter, free_port, read, wait_until
from test_process_handoff import ask, is_listening, keep, wait_in_queue

APP = "leaving:app"
HELD = "held " * 100_000
STOPPING = "SIGTERM: stopping gracefully"
GATED = """
import pathlib, time
while pathlib.Path("gate").exists():
    time.sleep(0.01)
from leaving import app
"""
FORKS_AT_IMPORT = """
import os, pathlib, time
child = os.fork()
if not child:
    while not pathlib.Path("release").exists():
        time.sleep(0.01)
    os._exit(0)
from leaving import app, plain
plain.ROUTES["/child"] = lambda environ: str(child)
"""

Expected = dict[http.client.HTTPConnection, str]


def accept_queue(port: int) -> int:
    """How many connections wait to be accepted, as the system tells."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if state == "0A" and int(local.split(":")[1], 16) == port:
            return int(queues.split(":")[1], 16)
    return -1  # nobody listens, or the table has changed while it was read


def occupy(server: Server, workers: int, in_handoff: int, in_backlog: int) -> Expected:
    """A request in hand of each worker, so many more in the hand-off queue, and so many that nobody
    has accepted; with the reply that is due to each."""
    queued = [keep(server) for _ in range(in_handoff)]
    assert [ask(connection, "/word/first").status for connection in queued] == [200] * in_handoff
    begun = [server.begin("/hold") for _ in range(workers)]
    assert len({worker for _, worker in begun}) == workers
    for number, connection in enumerate(queued):
        connection.request("GET", f"/word/queued-{number}")
    wait_in_queue(server, *queued)
    waiting = [server.send(f"/word/waiting-{number}") for number in range(in_backlog)]
    wait_until(lambda: accept_queue(server.port) == in_backlog, "all wait in the accept queue")
    return (
        {connection: HELD for connection, _ in begun}
        | {connection: f"queued-{number} " * 50_000 for number, connection in enumerate(queued)}
        | {connection: f"waiting-{number} " * 50_000 for number, connection in enumerate(waiting)}
    )


def check_whole(expected: Expected) -> None:
    """Each has its whole reply."""
    for connection, text in expected.items():
        reply = read(connection)
        assert reply.status == 200
        assert reply.text == text


def term(server: Server) -> None:
    server.signal(SIGTERM)
    server.wait_log(STOPPING)


def begun(server: Server) -> int:
    """How often the application has been called."""
    return len(list(server.cwd.glob("begun-*")))


@contextlib.contextmanager
def took(least: float) -> Iterator[None]:
    """What is done within takes so many seconds, or more."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began >= least


# Requests already sent


def test_every_request_sent_before_term_has_its_whole_reply(start: Starter) -> None:
    server = start(APP, "--workers", "8")
    expected = occupy(server, 8, 20, 64)
    term(server)
    server.release()
    check_whole(expected)
    assert server.wait() == 0
    assert server.log.finish().count("has retired") == 8


def test_hup_and_term_at_once_lose_no_request(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    expected = occupy(server, 2, 5, 10)
    server.signal(SIGHUP, SIGTERM)
    server.wait_log(STOPPING)
    server.release()
    check_whole(expected)
    assert server.wait() == 0


@pytest.mark.parametrize("arbiter_first", [True, False])
def test_term_to_all_processes_loses_no_request(start: Starter, arbiter_first: bool) -> None:
    """As systemd sends it where a unit does not say KillMode=mixed."""
    server = start(APP, "--workers", "2")
    expected = occupy(server, 2, 5, 10)
    workers = server.workers()
    for pid in (server.pid, *workers) if arbiter_first else (*workers, server.pid):
        os.kill(pid, SIGTERM)
    server.release()
    check_whole(expected)
    assert server.wait() == 0


def test_term_while_the_first_new_worker_boots_loses_no_request(start: Starter) -> None:
    start.write("site_app.py", GATED)
    server = start("site_app:app", "--workers", "2")
    expected = occupy(server, 2, 5, 10)
    start.write("gate", "")
    server.signal(SIGHUP)
    wait_until(lambda: len(server.workers()) == 3, "a new worker boots")
    term(server)
    server.release()
    check_whole(expected)
    assert server.wait() == 0


def test_term_while_the_old_workers_finish_loses_no_request(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    retiring = [server.begin("/hold")[0] for _ in range(2)]
    server.signal(SIGHUP)
    server.wait_log("is ready after", count=4)
    expected = occupy(server, 2, 5, 10) | dict.fromkeys(retiring, HELD)
    term(server)
    server.release()
    check_whole(expected)
    assert server.wait() == 0
    assert server.log.finish().count("has retired") == 4


def test_streaming_replies_under_way_at_term_are_finished(start: Starter) -> None:
    server = start(APP, "--workers", "3")
    responses = [server.send(f"/trickle/{number}").getresponse() for number in range(3)]
    assert [response.readline() for response in responses] == [b"0\n", b"1\n", b"2\n"]
    server.signal(SIGTERM)
    for number, response in enumerate(responses):
        *lines, end = response.read().splitlines()
        assert len(lines) >= 100
        assert set(lines) == {b"%d" % number}
        assert end == b"the end"
    assert server.wait() == 0


# Deadlines


def test_what_does_not_end_within_the_graceful_timeout_is_cut_and_named(start: Starter) -> None:
    server = start(APP, "--workers", "3", "--graceful-timeout", "2")
    posted = server.connect()
    posted.request("POST", "/hold/posted", body=b"x")
    wait_until(lambda: begun(server) == 1, "the first is in hand")
    asked, _ = server.begin("/hold/asked?for=ever")
    ending, _ = server.begin("/until-told")
    with took(1.9):
        term(server)
        assert read(ending).text == HELD
        assert server.wait() == 0
    log = server.log.finish()
    for request in (r"POST /hold/posted", r"GET /hold/asked\?for=ever"):
        cut = rf"in {request} for 127\.0\.0\.1 \([2-5]\.\d s after it was asked to stop\)"
        assert re.search(rf"^ERROR: +worker \d+ .* {cut}", log, re.MULTILINE), log
    for connection in (posted, asked):
        with pytest.raises(ConnectionError):
            read(connection)


def test_a_worker_that_cannot_listen_does_not_keep_the_others_from_leaving_well(start: Starter) -> None:
    """C code that keeps the interpreter to itself: it hears of the stop as little as of anything."""
    server = start(APP, "--workers", "3", "--graceful-timeout", "4")
    _, deaf = server.begin("/grind")
    others = server.workers() - {deaf}
    connection, busy = server.begin("/until-told")
    with took(3.9):
        term(server)
        assert read(connection).text == HELD
        wait_until(lambda: server.workers() == {deaf}, "the others have gone")
        assert server.wait() == 0
    assert busy in others
    assert all((start.cwd / f"exit-{pid}").exists() for pid in others)
    assert "in GET /grind" in server.log.finish()


def test_within_the_drain_delay_old_and_new_connections_are_served(start: Starter) -> None:
    server = start(APP, "--workers", "2", "--drain-delay", "3")
    old = keep(server)
    assert ask(old).status == 200
    with took(3):
        term(server)
        wait_until(lambda: ask(old).headers["Connection"] == "close", "a reply is its connection's last")
        for _ in range(5):
            assert server.get("/word/new").text == "new " * 50_000
        late = server.hold()
        wait_until(lambda: len(server.workers()) == 1, "the idle worker has gone")
        server.release()
        assert read(late).text == HELD
        assert server.wait() == 0


def test_int_ends_the_drain_delay(start: Starter) -> None:
    server = start(APP, "--drain-delay", "60")
    connection = server.hold()
    term(server)
    assert server.stop(SIGINT) == 0
    assert connection.sock.recv(1) == b""


def test_int_ends_an_exit_function_that_hangs(start: Starter) -> None:
    server = start(APP)
    (worker,) = server.workers()
    server.get("/hang-atexit")
    server.signal(SIGTERM)
    wait_until(lambda: not is_listening(worker), "the worker leaves")
    assert server.stop(SIGINT) == 0


# Leaving well


@pytest.mark.parametrize("signum", [SIGTERM, SIGHUP])
def test_a_leaving_worker_waits_for_its_threads_then_runs_exit_functions(
    start: Starter, signum: signal.Signals
) -> None:
    server = start(APP)
    (worker,) = server.workers()
    server.get("/start-thread")
    server.signal(signum)
    server.wait_log(rf"worker {worker} .* has retired")
    assert (start.cwd / "exit-saw-True").exists()


@pytest.mark.parametrize("signum", [SIGTERM, SIGHUP])
@pytest.mark.parametrize("path", ["/hang-thread", "/hang-atexit"])
def test_what_hangs_at_the_end_is_cut_by_the_deadline_and_leaves_its_stack(
    start: Starter, path: str, signum: signal.Signals
) -> None:
    server = start(APP, "--graceful-timeout", "2")
    (worker,) = server.workers()
    server.get(path)
    with took(1):
        server.signal(signum)
        server.wait_log(rf"worker {worker} .* ended with exit code 1")
    server.wait_log(r'File ".*leaving\.py", line \d+ in never_ends$')
    if signum == SIGTERM:
        assert server.wait() == 0
    else:
        assert server.get("/").text != str(worker)


@pytest.mark.parametrize("path", ["/fork", "/run", "/child"])
def test_what_the_application_has_started_keeps_neither_port_nor_clients(start: Starter, path: str) -> None:
    """A fork or a program, started in a request, or by the import of the application."""
    start.write("site_app.py", FORKS_AT_IMPORT)
    server = start("site_app:app" if path == "/child" else APP, "--bind", f"127.0.0.1:{free_port()}", bind=False)
    idle = keep(server)
    child = int(ask(idle, path).text)
    assert server.stop() == 0
    assert psutil.pid_exists(child)
    assert idle.sock.recv(1) == b""
    with socket.socket() as successor:
        successor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        successor.bind(("127.0.0.1", server.port))
        successor.listen()
    assert psutil.pid_exists(child)


@pytest.mark.parametrize("path", ["/fork", "/run", "/child"])
def test_what_a_worker_has_started_survives_its_retirement_without_its_sockets(start: Starter, path: str) -> None:
    start.write("site_app.py", FORKS_AT_IMPORT)
    server = start("site_app:app" if path == "/child" else APP)
    (worker,) = server.workers()
    connection = keep(server)
    child = int(ask(connection, path).text)
    server.hup()
    server.wait_log(rf"worker {worker} .* has retired")
    assert not psutil.Process(child).net_connections("tcp")
    connection.request("GET", "/", headers={"Connection": "close"})
    response = connection.getresponse()
    assert int(response.read()) in server.workers()
    assert response.fp is None or not response.fp.read()


# What the application can ask and say


@pytest.mark.parametrize("signum", [SIGTERM, SIGHUP])
def test_a_request_in_hand_sees_that_its_worker_leaves(start: Starter, signum: signal.Signals) -> None:
    server = start(APP)
    connection, _ = server.begin("/tell-shutdown")
    server.signal(signum)
    assert read(connection).text == "False, then True"


def test_a_request_outlives_the_timeout_with_an_extended_deadline(start: Starter) -> None:
    """The same request without it, begun later, is killed."""
    server = start(APP, "--workers", "2", "--timeout", "1")
    extended, worker = server.begin("/extend/60")
    _, other = server.begin("/hold")
    server.wait_log(rf"worker {other} .* in GET /hold")
    server.wait_log("is ready after", count=3)
    server.release()
    assert read(extended).text == HELD
    assert worker in server.workers()
    assert f"worker {worker} (slot" not in server.log.text.partition("late by")[2]


def test_a_request_beyond_its_extended_deadline_is_killed(start: Starter) -> None:
    server = start(APP, "--timeout", "1")
    _, worker = server.begin("/extend/2")
    with took(2.5):
        server.wait_log(rf"worker {worker} .* was late by .* in GET /extend/2")


# --queue-timeout


def queue_up(server: Server, connection: http.client.HTTPConnection, path: str) -> None:
    """Send a request that waits in the hand-off queue."""
    connection.request("GET", path)
    wait_in_queue(server, connection)


def test_a_request_that_has_waited_too_long_is_refused_and_a_fresh_one_is_served(start: Starter) -> None:
    server = start(APP, "--queue-timeout", "3")
    stale, fresh = keep(server), keep(server)
    assert [ask(connection).status for connection in (stale, fresh)] == [200, 200]
    held = server.hold()
    queue_up(server, stale, "/word/stale")
    time.sleep(3.2)
    queue_up(server, fresh, "/word/fresh")
    calls = begun(server)
    server.release()
    assert read(held).text == HELD
    refusal = read(stale)
    assert refusal.status == 503
    assert refusal.headers["Retry-After"].isdigit()
    assert read(fresh).text == "fresh " * 50_000
    assert begun(server) == calls + 1
    server.wait_log(r"refused with 503: it has waited \d\.\d s for a worker")


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_request_that_waits_with_its_own_worker_is_refused_as_well(start: Starter, family: str) -> None:
    """It is larger than what is handed on."""
    path = start.cwd / "s"
    server = start(APP, "--queue-timeout", "1", "--bind", f"unix:{path}")
    connection = keep(server, at=path if family == "unix" else None)
    assert ask(connection).status == 200
    held = server.hold()
    connection.request("POST", "/word/stale", body=b"x" * 50_000)
    time.sleep(2)
    server.release()
    assert read(held).text == HELD
    assert read(connection).status == 503


def test_a_request_that_nobody_has_accepted_in_time_is_refused(start: Starter) -> None:
    server = start(APP, "--queue-timeout", "3")
    held = server.hold()
    stale = server.send("/word/stale")
    time.sleep(3.2)
    fresh = server.send("/word/fresh")
    wait_until(lambda: accept_queue(server.port) == 2, "both wait in the accept queue")
    calls = begun(server)
    server.release()
    assert read(held).text == HELD
    assert read(stale).status == 503
    assert read(fresh).text == "fresh " * 50_000
    assert begun(server) == calls + 1


def test_without_a_queue_timeout_a_request_waits_as_long_as_it_takes(start: Starter) -> None:
    server = start(APP)
    connection = keep(server)
    assert ask(connection).status == 200
    held = server.hold()
    queue_up(server, connection, "/word/patient")
    time.sleep(2)
    server.release()
    check_whole({held: HELD, connection: "patient " * 50_000})
