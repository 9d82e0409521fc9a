"""What is counted, seen from outside: totals that equal a client's own, whatever becomes of the workers."""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR2

import pytest
from harness import Server, Starter, wait_until
from load import Load

from minicorn.figures import survey
from minicorn.figures.snapshot import Snapshot
from minicorn.pool.standing import Stage

FORKING = """\
import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/fork" and not os.fork():
        while not os.path.exists("go-on"):
            time.sleep(0.02)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def look(server: Server) -> Snapshot:
    return survey.look(server.heartbeats())


class Watch(threading.Thread):
    """Looks again and again; keeps what went back."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.done = threading.Event()
        self.looks = 0
        self.went_back: list[str] = []

    def run(self) -> None:
        before = survey.look(self.path).totals
        while not self.done.is_set():
            now = survey.look(self.path).totals
            self.looks += 1
            if any(value < 0 for value in (now - before).values):
                self.went_back.append(f"{before} {now}")
            before = now


@contextmanager
def watched(server: Server) -> Iterator[None]:
    watch = Watch(server.heartbeats())
    watch.start()
    yield
    watch.done.set()
    watch.join()
    assert watch.looks > 10
    assert watch.went_back == []


def test_totals_equal_the_clients_own_count_across_rolls_and_recycling(start: Starter) -> None:
    server = start("handoff_app:app", "--workers", "2", "--max-requests", "40", "--max-requests-jitter", "20")
    with watched(server), Load(server.port, 6) as load:
        for roll in (1, 2):
            reached = load.least_replies() + 20
            wait_until(lambda least=reached: load.least_replies() >= least, "all clients are served", 30)
            server.hup(roll)
    assert load.tally.failures == [] and load.tally.idle_closes == []
    assert load.tally.requests == len(load.tally.replies)
    # A request is counted a moment after its reply has gone
    wait_until(lambda: look(server).totals.requests >= load.tally.requests, "all are counted")
    totals = look(server).totals
    assert totals.requests == load.tally.requests
    assert totals.by_status["2xx"] == totals.requests == totals.queue.count
    assert totals.taken <= totals.given
    exits = look(server).standing.exits
    assert sum(exits.values()) >= 4
    assert set(exits) <= {"retired", "recycled"}


def test_a_worker_killed_in_a_request_takes_one_request_along_at_most(start: Starter) -> None:
    server = start("handoff_app:app", "--workers", "3")
    kills = 8
    with watched(server), Load(server.port, 6) as load:
        for kill in range(kills):
            wait_until(lambda: set(look(server).states) <= {"idle", "busy"}, "all serve")
            os.kill(random.choice(look(server).workers).pid, SIGKILL)
            wait_until(lambda nth=kill: look(server).standing.exits.get("signal", 0) > nth, "it is buried")
            reached = load.least_replies() + 3
            wait_until(lambda least=reached: load.least_replies() >= least, "all clients are served", 30)
    totals = look(server).totals
    replies = len(load.tally.replies)
    assert replies - kills <= totals.requests <= replies + kills
    assert look(server).standing.exits == {"signal": kills}


def test_totals_and_what_was_told_survive_an_upgrade(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    for _ in range(5):
        assert server.get("/").status == 200
    wait_until(lambda: look(server).totals.requests == 5, "all are counted")
    before = look(server)
    with watched(server):
        server.signal(SIGUSR2)
        server.wait_log("generation 2 serves")
    wait_until(lambda: look(server).standing.exits == {"retired": 2}, "both are buried")
    after = look(server)
    assert after.totals.requests == before.totals.requests == 5
    assert (after.standing.upgrades, after.standing.started) == (1, before.standing.started)
    assert after.standing.obeyed["SIGUSR2"] == 1


def test_bytes_are_those_on_the_wire(start: Starter) -> None:
    server = start("handoff_app:app")
    connection = server.connect()
    request = b"POST /echo/7-7 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
    connection.connect()
    connection.sock.sendall(request)
    reply = connection.sock.recv(65536)
    assert reply.endswith(b"hello")
    wait_until(lambda: look(server).totals.requests == 1, "it is counted")
    totals = look(server).totals
    assert (totals.received, totals.sent, totals.accepted) == (len(request), len(reply), 1)
    assert look(server).workers[0].connections == 1
    connection.sock.close()
    wait_until(lambda: look(server).workers[0].connections == 0, "its end is seen")


def test_a_child_of_the_applications_that_goes_on_after_us_counts_nothing(start: Starter) -> None:
    start.write("forking_app.py", FORKING)
    server = start("forking_app:app")
    with watched(server):
        assert [server.get(path).status for path in ("/", "/fork", "/", "/")] == [200] * 4
        wait_until(lambda: look(server).totals.requests == 4, "all are counted")
        before = look(server).totals
        (server.cwd / "go-on").touch()
        server.wait_log("came back to the server")
    assert look(server).totals == before


def test_time_in_the_queue_counts_from_the_proxy_that_took_the_request_on(start: Starter) -> None:
    server = start("plain:app")
    connection = server.connect()
    connection.request("GET", "/", headers={"X-Request-Start": f"t={time.time() - 7:.6f}"})
    connection.getresponse().read()
    wait_until(lambda: look(server).totals.requests == 1, "it is counted")
    queue = look(server).totals.queue
    assert (queue.count, queue.quantile(0.5) > 5, 7 <= queue.total < 7 + 15) == (1, True, True)


def test_what_is_refused_is_no_request(start: Starter) -> None:
    server = start("plain:app")
    connection = server.connect()
    connection.connect()
    connection.sock.sendall(b"GET / HTTP/9.9\r\n\r\n")
    assert b" 505 " in connection.sock.recv(65536)
    wait_until(lambda: look(server).totals.refused == 1, "it is counted")
    assert look(server).totals.requests == 0


def test_a_worker_in_a_request_is_seen_with_it(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    _, pid = server.begin("/hold")
    (worker,) = (each for each in look(server).workers if each.busy)
    assert (worker.pid, worker.request, worker.client) == (pid, "GET /hold", "127.0.0.1")
    assert look(server).states == {"idle": 1, "busy": 1}
    server.release()
    wait_until(lambda: look(server).states == {"idle": 2}, "it is done")


def test_errors_of_workers_and_arbiter_are_kept(start: Starter) -> None:
    server = start("plain:app")
    assert server.get("/fail").status == 500
    wait_until(lambda: look(server).errors, "it is seen")
    assert "GET /fail" in look(server).errors[-1].text
    wait_until(lambda: look(server).totals.by_status["5xx"] == 1, "it is counted")
    (pid,) = server.workers()
    os.kill(pid, SIGKILL)
    wait_until(lambda: len(look(server).errors) == 2, "the worker's stays, the arbiter's comes")
    assert "GET /fail" in look(server).errors[0].text
    assert f"worker {pid}" in look(server).errors[1].text


def test_the_stage_of_a_server_is_told(start: Starter) -> None:
    start.write("slow_boot.py", "import time\nwhile not __import__('os').path.exists('go'): time.sleep(0.01)\n"
                "from plain import app\n")  # fmt: skip
    server = start("slow_boot:app", "--drain-delay", "60", ready=0)
    server.wait_log("Listening on")
    wait_until(lambda: survey.find_by_pid(server.pid), "it tells")
    assert (look(server).standing.stage, look(server).unready) == (Stage.BOOTING, "booting")
    (server.cwd / "go").touch()
    server.wait_ready()
    wait_until(lambda: not look(server).unready, "it is ready")
    server.signal(SIGTERM)
    wait_until(lambda: look(server).unready == "draining", "it drains")
    assert server.get("/").status == 200
    server.signal(SIGINT)
    server.wait()


def test_a_failed_roll_is_told_with_its_error(start: Starter) -> None:
    server = start("plain:app")
    start.write("plain.py", "1 / 0\n")
    server.signal(SIGHUP)
    wait_until(lambda: look(server).standing.rolled, "the roll has ended")
    standing = look(server).standing
    assert standing.rolled is not None
    assert (standing.rolled.outcome, standing.rolled.wish, standing.generation) == ("failed", 1, 1)
    assert "ZeroDivisionError" in standing.roll_error
    assert time.time() - standing.rolled_at < 60


def test_a_server_is_found_by_its_directory_and_by_its_pid(start: Starter, tmp_path: Path) -> None:
    base = tmp_path / "heartbeats"
    base.mkdir()
    server = start("plain:app", "--worker-tmp-dir", str(base))
    assert survey.find(str(base)) == [server.heartbeats()]
    assert survey.find_by_pid(server.pid) == server.heartbeats()
    assert survey.find_by_pid(os.getpid()) is None
    server.kill_arbiter()
    assert survey.find(str(base)) == []


@pytest.mark.slow
def test_totals_stay_exact_over_many_rolls(start: Starter) -> None:
    server = start("handoff_app:app", "--workers", "4", "--max-requests", "100")
    with watched(server), Load(server.port, 12) as load:
        for roll in range(1, 9):
            server.hup(roll)
    assert load.tally.failures == [] and load.tally.idle_closes == []
    wait_until(lambda: look(server).totals.requests >= load.tally.requests, "all are counted")
    assert look(server).totals.requests == load.tally.requests
