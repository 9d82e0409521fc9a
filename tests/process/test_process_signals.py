"""What each signal does, sent to the arbiter and to a worker by hand."""

import os
import re
import signal
import sys
import threading
import time
from signal import SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGSTOP, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH

import psutil
import pytest
from harness import LISTENING, MINICORN, Server, Starter, descriptors, read, wait_until

VERSIONED = """
import time
time.sleep({boot})
from plain import ROUTES, app
ROUTES["/version"] = lambda environ: "{version}"
"""
PATIENT = """
import pathlib, time
while not pathlib.Path("all-sent").exists():
    time.sleep(0.01)
from plain import ROUTES, app
ROUTES["/version"] = lambda environ: "{version}"
"""
ALARMED = """
import signal
from plain import app

def give_up(signum, frame):
    raise TimeoutError("too late")

signal.signal(signal.SIGALRM, give_up)
BLOCK = bytes(1_000_000)

def app(environ, start_response, plain=app):
    # As plain.py, and a reply without an end, with half a second to be sent
    if environ["PATH_INFO"] not in ("/given", "/written"):
        return plain(environ, start_response)
    write = start_response("200 OK", [])
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    while environ["PATH_INFO"] == "/written":
        write(BLOCK)
    return iter(lambda: BLOCK, None)
"""
QUERY = """
import ctypes, os
from plain import ROUTES, app
os.path.exists("answers") or os.mkfifo("answers")

def query(environ):
    answers = os.open("answers", os.O_RDWR)
    open("asked", "w").close()
    return str(ctypes.CDLL(None).read(answers, ctypes.create_string_buffer(1), 1))

ROUTES["/query"] = query
"""
# An arbiter in small. It is not woken by what a child of its takes without handlers of its own; and each child that
# has them hears of a TERM that is sent as soon as it is there
FORKING = """
import os, select, signal
from minicorn.system import spawn
from minicorn.system.signals import Signals

ours = Signals([signal.SIGTERM, signal.SIGINT])
ours.install()

def be_auxiliary():
    spawn.ignore_terminal()
    os.kill(os.getpid(), signal.SIGINT)
    return 0

os.waitpid(spawn.fork(be_auxiliary), 0)
assert not select.select([ours.fd], [], [], 0)[0]

def be_worker():
    taken = Signals([signal.SIGTERM])
    taken.install()
    select.select([taken.fd], [], [], 5)
    return len(taken.take())

for _ in range(60):
    pid = spawn.fork(be_worker)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
"""
DEMO = ("minicorn.demo:app", "--bind", "127.0.0.1:0")


def ready_counts(log: str) -> list[int]:
    """How many workers had said READY and were not gone, after each line that changes it, until the stop."""
    counts = [0]
    for line in log.partition("stopping")[0].splitlines():
        if "is ready after" in line:
            counts.append(counts[-1] + 1)
        elif "has retired" in line or "killed by" in line or "ended with" in line:
            counts.append(counts[-1] - 1)
    return counts


# TERM


def test_term_lets_the_request_in_hand_finish(start: Starter) -> None:
    server = start()
    connection, _ = server.begin("/until-told")
    server.signal(SIGTERM)
    reply = read(connection)
    assert (reply.status, len(reply.body)) == (200, 500_000)
    assert reply.headers["Connection"] == "close"
    assert server.wait() == 0


def test_term_answers_all_that_waits_in_the_accept_queue(start: Starter) -> None:
    server = start()
    held, _ = server.begin("/until-told")
    waiting = [server.send("/") for _ in range(30)]
    server.signal(SIGTERM)
    assert read(held).status == 200
    replies = [read(connection) for connection in waiting]
    assert [reply.status for reply in replies] == [200] * 30
    assert {reply.headers["Connection"] for reply in replies} == {"close"}
    assert server.wait() == 0


def test_term_answers_the_accept_queue_of_several_busy_workers(start: Starter) -> None:
    server = start("plain:app", "--workers", "3")
    held = [server.hold() for _ in range(3)]
    waiting = [server.send("/") for _ in range(30)]
    server.signal(SIGTERM)
    server.wait_log("SIGTERM: stopping gracefully")
    server.release()
    assert [read(connection).status for connection in held + waiting] == [200] * 33
    assert server.wait() == 0


def test_an_idle_keep_alive_client_does_not_delay_term(start: Starter) -> None:
    server = start("plain:app", "--keep-alive", "60")
    connection = server.send("/")
    assert read(connection).headers.get("Connection") != "close"
    assert server.stop() == 0


def test_a_second_term_changes_nothing(start: Starter) -> None:
    server = start()
    connection = server.hold()
    server.signal(SIGTERM)
    server.wait_log("SIGTERM: stopping gracefully")
    server.signal(SIGTERM)
    # Two loops later it has been taken
    server.signal(SIGTTIN)
    server.wait_log("workers wanted")
    server.signal(SIGTERM)
    server.release()
    assert len(read(connection).body) == 500_000
    assert server.wait() == 0
    assert server.log.finish().count("stopping") == 1


@pytest.mark.parametrize("signum", [SIGTERM, SIGINT])
def test_a_signal_sent_again_and_again_changes_no_exit_code(start: Starter, signum: signal.Signals) -> None:
    """Not even while the interpreter winds up (a crash, to a supervisor)."""
    server = start("plain:app", "--workers", "2")
    deadline = time.monotonic() + 10
    while server.process.poll() is None and time.monotonic() < deadline:
        server.signal(signum)
        time.sleep(0.001)
    assert server.wait() == 0
    assert "Traceback" not in server.log.finish()


def test_term_lets_a_slow_client_take_its_whole_reply(start: Starter) -> None:
    """The application is done with it, the client is not."""
    server = start()
    response = server.send("/big").getresponse()
    server.signal(SIGTERM)
    server.wait_log("SIGTERM: stopping gracefully")
    assert len(response.read()) == 8 * 2**20
    assert server.wait() == 0


def test_what_the_graceful_timeout_ends_is_named(start: Starter) -> None:
    server = start("plain:app", "--graceful-timeout", "1")
    server.hold()
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began > 0.9
    assert "in GET /hold" in server.log.finish()


@pytest.mark.parametrize("signum", [SIGTERM, SIGINT])
def test_a_stop_does_not_wait_for_a_slow_import(start: Starter, signum: signal.Signals) -> None:
    start.write("site_app.py", VERSIONED.format(boot=30, version="any"))
    server = start("site_app:app", "--workers", "2", ready=0)
    wait_until(lambda: len(server.workers()) == 2, "they are importing")
    assert server.stop(signum) == 0


# INT and QUIT


@pytest.mark.parametrize("signum", [SIGINT, SIGQUIT])
@pytest.mark.parametrize("path", ["/nap", "/spin", "/grind"])
def test_int_and_quit_end_a_hanging_request_at_once(start: Starter, signum: signal.Signals, path: str) -> None:
    server = start("plain:app", "--workers", "2")
    server.begin(path)
    assert server.stop(signum) == 0


def test_int_after_term_escalates(start: Starter) -> None:
    server = start()
    server.hold()
    server.signal(SIGTERM)
    server.wait_log("SIGTERM: stopping gracefully")
    assert server.stop(SIGINT) == 0


def test_term_after_int_slows_nothing(start: Starter) -> None:
    server = start()
    server.hold()
    server.signal(SIGINT)
    server.wait_log("SIGINT: stopping now")
    assert server.stop(SIGTERM) == 0


# HUP


def test_hup_replaces_all_workers_and_serves_the_new_code(start: Starter) -> None:
    start.write("site_app.py", VERSIONED.format(boot=0, version="old"))
    server = start("site_app:app", "--workers", "4")
    before = server.workers()
    assert server.get("/version").text == "old"
    start.write("site_app.py", VERSIONED.format(boot=0, version="new"))
    server.hup()
    wait_until(lambda: not before & server.workers(), "all old workers have gone")
    assert len(server.workers()) == 4
    assert {server.get("/version").text for _ in range(20)} == {"new"}


def test_hup_starts_the_new_before_it_retires_the_old(start: Starter) -> None:
    start.write("site_app.py", VERSIONED.format(boot=0.3, version="any"))
    server = start("site_app:app", "--workers", "4")
    server.hup()
    server.wait_log("has retired", count=4)
    log = server.log.text
    counts = ready_counts(log)
    assert min(counts[counts.index(4) :]) == 4, log
    assert log.index("gen 2) is ready") < log.index("has retired"), log


@pytest.mark.parametrize("workers", ["1", "3"])
def test_no_request_fails_while_workers_are_replaced(start: Starter, workers: str) -> None:
    server = start("plain:app", "--workers", workers)
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            statuses.append(server.get("/").status)

    client = threading.Thread(target=ask)
    client.start()
    try:
        for roll in (1, 2, 3):
            server.hup(roll)
    finally:
        over.set()
        client.join()
    assert statuses
    assert set(statuses) == {200}


def test_a_request_in_hand_survives_hup(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    connection = server.hold()
    server.signal(SIGHUP)
    server.wait_log("is ready after", count=4)
    server.release()
    assert len(read(connection).body) == 500_000
    server.wait_log("generation 2 serves")


def test_rolls_leave_no_descriptors_open(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    server.hup()
    server.wait_log("has retired", count=2)
    before = len(descriptors(server.pid))
    for roll in (2, 3, 4):
        server.hup(roll)
    server.wait_log("has retired", count=8)
    wait_until(lambda: len(descriptors(server.pid)) == before, "nothing is left open")


def test_ten_hups_in_a_second_make_two_rolls_at_most(start: Starter) -> None:
    """And the code of the last one is served. The first roll lasts until all have come."""
    start.write("site_app.py", VERSIONED.format(boot=0, version=0))
    server = start("site_app:app", "--workers", "2")
    for version in range(1, 11):
        start.write("site_app.py", PATIENT.format(version=version))
        server.signal(SIGHUP)
        server.wait_log("rolling to generation 2")
        time.sleep(0.04)
    (start.cwd / "all-sent").touch()
    wait_until(lambda: server.get("/version").text == "10", "the newest code is served")
    server.wait_log("generation 3 serves")
    assert server.log.text.count("rolling to generation") == 2


def test_hup_hup_term_stops(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    server.signal(SIGHUP, SIGHUP)
    assert server.stop(SIGTERM) == 0


def test_term_during_a_roll_stops(start: Starter) -> None:
    start.write("site_app.py", VERSIONED.format(boot=0.5, version=0))
    server = start("site_app:app", "--workers", "2")
    server.signal(SIGHUP, SIGHUP)
    server.wait_log("rolling to generation 2")
    server.signal(SIGHUP)
    assert server.stop(SIGTERM) == 0


# USR1


def test_usr1_reopens_the_logs_of_arbiter_and_workers(start: Starter) -> None:
    error, access = start.cwd / "error.log", start.cwd / "access.log"
    flags = ("--workers", "2", "--error-logfile", str(error), "--access-logfile", str(access))
    server = start("plain:app", *flags, ready=0)
    wait_until(lambda: error.exists() and error.read_text().count("is ready after") == 2, "two workers are ready")
    port = int(re.search(LISTENING, error.read_text())[1])
    assert server.get("/version", at=port).status == 200
    wait_until(lambda: "GET /version" in access.read_text(), "the access log has the request")
    error.rename(start.cwd / "error.log.1")
    access.rename(start.cwd / "access.log.1")
    server.signal(SIGUSR1)
    everyone = [server.pid, *server.workers()]
    wait_until(lambda: not any(link.endswith(".log.1") for pid in everyone for link in descriptors(pid)), "reopened")
    assert server.get("/fail", at=port).status == 500
    server.signal(SIGTTIN)
    wait_until(lambda: "GET /fail" in access.read_text(), "the new access log has the request")
    wait_until(lambda: "3 workers wanted" in error.read_text(), "the arbiter writes to the new error log")
    assert "ValueError: as the path says" in error.read_text()
    assert "GET /fail" not in (start.cwd / "access.log.1").read_text()
    assert "ValueError" not in (start.cwd / "error.log.1").read_text()


# TTIN, TTOU, WINCH


def test_ttin_and_ttou_change_the_number_of_workers(start: Starter) -> None:
    server = start()
    server.signal(SIGTTIN)
    server.wait_log("is ready after", count=2)
    assert len(server.workers()) == 2
    server.signal(SIGTTOU)
    server.wait_log("has retired")
    wait_until(lambda: len(server.workers()) == 1, "one worker is left")


def test_ttou_never_goes_below_one(start: Starter) -> None:
    server = start()
    server.signal(SIGTTOU)
    server.wait_log("1 workers? wanted")
    server.signal(SIGTTOU)
    server.wait_log("1 workers? wanted", count=2)
    assert len(server.workers()) == 1
    assert server.get("/").status == 200
    assert "has retired" not in server.log.text
    server.signal(SIGTTIN)
    server.wait_log("is ready after", count=2)


def test_winch_retires_all_and_keeps_the_port_until_hup(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    server.signal(SIGWINCH)
    wait_until(lambda: not server.workers(), "the workers have gone")
    waiting = server.send("/")
    server.signal(SIGHUP)
    assert read(waiting).status == 200
    wait_until(lambda: len(server.workers()) == 2, "both workers are back")


def test_term_stops_a_server_without_workers(start: Starter) -> None:
    server = start()
    server.signal(SIGWINCH)
    wait_until(lambda: not server.workers(), "the workers have gone")
    assert server.stop() == 0


def test_winch_lets_the_request_in_hand_finish(start: Starter) -> None:
    server = start()
    connection = server.hold()
    server.signal(SIGWINCH)
    server.wait_log("SIGWINCH")
    server.release()
    assert len(read(connection).body) == 500_000
    wait_until(lambda: not server.workers(), "the worker has gone")


# To a worker, by hand


def test_term_to_a_worker_retires_it_and_it_is_replaced(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    connection, busy = server.begin("/hold")
    os.kill(busy, SIGTERM)
    server.release()
    assert len(read(connection).body) == 500_000
    server.wait_log(rf"worker {busy} .* has retired")
    server.wait_log("is ready after", count=3)
    assert len(server.workers() - {busy}) == 2


def test_a_signal_handler_of_the_applications_that_raises_between_requests_costs_no_connection(start: Starter) -> None:
    start.write("alarmed.py", ALARMED)
    server = start("alarmed:app")
    connection = server.connect()
    connection.request("GET", "/")
    (worker,) = server.workers()
    assert int(read(connection).text) == worker
    os.kill(worker, signal.SIGALRM)
    server.wait_log(
        "^ERROR: +a signal handler of the application raised between requests\n(.+\n)+TimeoutError: too late$"
    )
    connection.request("GET", "/")
    assert int(read(connection).text) == worker


@pytest.mark.parametrize("path", ["/given", "/written"])
def test_nor_does_one_that_raises_while_a_reply_waits_for_its_client(start: Starter, path: str) -> None:
    start.write("alarmed.py", ALARMED)
    server = start("alarmed:app")
    server.send(path)
    server.wait_log(rf"^ERROR: +GET {path}: the application raised\n(.+\n)+TimeoutError: too late$")
    connection = server.connect()
    for _ in range(3):
        connection.request("GET", "/")
        assert read(connection).status == 200
    assert server.log.text.count("ERROR") == 1


def test_hup_soon_after_winch_brings_the_workers_back(start: Starter) -> None:
    """The arbiter may see both at once, in no order."""
    server = start()
    server.signal(SIGSTOP, SIGWINCH, SIGHUP, SIGCONT)
    server.wait_log("generation 2 serves|worker .* gen 2.* is ready")
    assert server.get("/").status == 200


@pytest.mark.parametrize("signum", [SIGHUP, SIGUSR1, SIGUSR2, SIGINT, SIGWINCH])
def test_other_signals_to_a_worker_are_harmless(start: Starter, signum: signal.Signals) -> None:
    server = start()
    (worker,) = server.workers()
    connection = server.hold()
    os.kill(worker, signum)
    server.release()
    assert len(read(connection).body) == 500_000
    os.kill(worker, signum)
    assert server.get("/").text == str(worker)
    assert server.workers() == {worker}


@pytest.mark.parametrize("flags", [(), ("--preload",)])
def test_the_applications_own_handler_of_sigio_stays(start: Starter, flags: tuple[str, ...]) -> None:
    """Until it is ready, a worker hears by that signal that the arbiter has gone."""
    start.write("notified.py", "import signal\nfrom plain import app\nsignal.signal(signal.SIGIO, lambda *_: None)\n")
    server = start("notified:app", *flags)
    worker = server.get("/").text
    os.kill(int(worker), signal.SIGIO)
    assert server.get("/").text == worker


def test_signals_to_a_worker_cancel_nothing_that_a_c_library_waits_for(start: Starter) -> None:
    """Most of them, as libpq, give up upon EINTR: the kernel is told to go on instead."""
    start.write("query.py", QUERY)
    server = start("query:app")
    connection, worker = server.begin("/query")
    wait_until((start.cwd / "asked").exists, "it asks")
    process = psutil.Process(worker)
    for signum in (SIGHUP, SIGUSR2, SIGUSR1, SIGUSR2, SIGTERM):  # USR2 is faulthandler's
        slept = process.num_ctx_switches().voluntary
        os.kill(worker, signum)
        wait_until(lambda slept=slept: process.num_ctx_switches().voluntary > slept, "it goes on waiting")
    (start.cwd / "answers").write_bytes(b".")
    assert read(connection).text == "1"


def test_quit_to_a_worker_ends_it_and_it_is_replaced(start: Starter) -> None:
    server = start()
    (worker,) = server.workers()
    os.kill(worker, SIGQUIT)
    server.wait_log("is ready after", count=2)
    assert server.get("/").text != str(worker)


# Early signals


def test_term_right_after_the_start_is_not_lost(start: Starter) -> None:
    for attempt in range(15):
        server = start.command(*MINICORN, *DEMO, "--workers", "2")
        time.sleep(attempt * 0.015)
        # Before our handlers stand, the default disposition ends it as well
        assert server.stop() in (0, -SIGTERM)
        wait_until(lambda server=server: not server.family(), "the whole tree has gone")


def test_term_right_after_a_fork_is_not_lost(start: Starter) -> None:
    for _ in range(4):
        server = start.command(*MINICORN, *DEMO, "--workers", "4")
        wait_until(lambda server=server: psutil.Process(server.pid).children(), "the first fork")
        assert server.stop() == 0
        wait_until(lambda server=server: not server.family(), "the whole tree has gone")


def test_term_in_the_moment_of_a_fork_is_not_lost_and_not_the_parents(start: Starter) -> None:
    """CPython forgets in a new child what came before its own handlers stand: held back, it comes then."""
    assert start.command(sys.executable, "-c", FORKING).wait() == 0


def test_term_to_a_worker_just_forked_is_not_lost(start: Starter) -> None:
    server = start("minicorn.demo:app", "--workers", "8", ready=0)
    early: set[int] = set()
    while len(early) < 8:
        for child in server.workers() - early:
            if len(early) < 8:
                early.add(child)
                os.kill(child, SIGTERM)
    wait_until(lambda: not early & server.workers(), "those who were told to go have gone")
    wait_until(lambda: len(server.workers()) == 8, "they are replaced")


SELDOM = [pytest.param(signum, marks=pytest.mark.slow) for signum in (SIGHUP, SIGUSR1)]


@pytest.mark.parametrize("signum", [SIGTERM, *SELDOM])
def test_a_signal_as_soon_as_the_pid_file_is_there_is_obeyed(start: Starter, signum: signal.Signals) -> None:
    """Who has read the pid may use it: the handlers stand before it is written."""
    for attempt in range(6):
        path = start.cwd / f"{attempt}.pid"
        server: Server = start.command(*MINICORN, *DEMO, "--pid", path.name)
        while not (path.exists() and path.read_text()):  # however long it takes: to look at once is what counts
            pass
        server.signal(signum)
        if signum == SIGTERM:
            assert server.wait() == 0
            assert not path.exists()
        else:
            server.wait_ready()
            assert server.get("/").status == 200
            assert server.stop() == 0
