"""More faults: a hang across a stopped arbiter, real want of memory, replies cut by SIGKILL, strangers that end."""

import http.client
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Iterator
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTTIN

import psutil
import pytest
from cages import cage
from harness import Server, Starter, read, wait_until

APP = "faults_app:app"
BY_HAND = "was killed by SIGKILL, which we did not send"
OOM = r"was killed by the kernel for want of memory \(OOM\)"


def is_gone(pid: int) -> bool:
    """Not even a zombie is left."""
    return not psutil.pid_exists(pid)


# The arbiter is stopped


def test_a_hang_from_before_the_arbiter_was_stopped_is_judged_by_its_extended_patience(start: Starter) -> None:
    """While it stood still 2 s of patience ended twice: it grants both workers what it has missed."""
    pause = 3.0
    server = start("plain:app", "--workers", "3", "--timeout", "2", "--log-level", "debug")
    workers = server.workers()
    _, hung = server.begin("/nap")
    server.signal(SIGSTOP)
    fresh, busy = server.begin("/hold")
    time.sleep(pause)
    server.signal(SIGCONT)
    server.wait_log("the arbiter was held up for")
    server.release()
    assert read(fresh).status == 200
    line = server.wait_log(rf"worker {hung} .* was late by .*, (\d+\.\d) s in GET /nap")
    # It had two seconds, and what the arbiter missed
    assert float(line[1]) >= 2 + pause - 0.1, line[0]
    server.wait_log("is ready after", count=4)
    assert server.log.text.count("was late by") == 1
    survivors = server.workers() & workers
    assert busy in survivors
    assert survivors == workers - {hung}


# What an import does to signals

PIPES = """
import signal, time
signal.signal(signal.SIGPIPE, signal.SIG_DFL)

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/":
        return [b"here"]
    return (time.sleep(0.05) or b"a line" for _ in range(5))
"""


@pytest.mark.parametrize("flags", [(), ("--preload",)], ids=["alone", "preload"])
def test_a_client_that_leaves_ends_no_worker_whose_application_has_taken_back_sigpipe(
    start: Starter, flags: tuple[str, ...]
) -> None:
    start.write("pipes.py", PIPES)
    server = start("pipes:app", *flags)
    other = server.connect()
    other.request("GET", "/")
    assert read(other).text == "here"
    leaving = server.connect()
    leaving.request("GET", "/lines")
    leaving.getresponse().close()
    leaving.close()
    other.request("GET", "/")  # to the same worker, once it is done with that one
    assert read(other).text == "here"
    assert "SIGPIPE" not in server.log.text


# A whole tree is killed


def test_cleaning_up_after_a_killed_tree_spares_a_live_servers_heartbeats(start: Starter) -> None:
    beats = start.cwd / "beats"
    beats.mkdir()
    flags = ("--workers", "2", "--worker-tmp-dir", str(beats))
    alive, killed = start(APP, *flags), start(APP, *flags)
    spared, left = alive.heartbeats(), killed.heartbeats()
    content = sorted(entry.name for entry in spared.iterdir())
    tree = killed.family()
    killed.kill_all()
    killed.wait()
    wait_until(lambda: all(is_gone(pid) for pid in tree), "no zombie is left")
    assert left.exists()
    successor = start(APP, *flags)
    assert set(beats.iterdir()) == {spared, successor.heartbeats()}
    assert sorted(entry.name for entry in spared.iterdir()) == content
    alive.hup()
    assert alive.get("/").status == 200


# No descriptors from the start


def test_a_start_with_few_descriptors_serves_with_as_many_workers_as_it_gets(start: Starter) -> None:
    server = start(APP, "--workers", "6", prelude="limit=28,28", ready=1)
    server.wait_log("the next try in", count=3)
    assert 0 < len(server.workers()) < 6
    assert server.get("/").status == 200
    serving = server.workers()
    server.wait_ready(len(serving))
    os.kill(min(serving), SIGKILL)
    server.wait_ready(len(serving) + 1)
    wait_until(lambda: min(serving) not in server.workers() and len(server.workers()) == len(serving), "replaced")
    assert server.get("/").status == 200
    assert server.stop() == 0
    log = server.log.finish()
    assert "cannot start a worker: Too many open files" in log
    assert log.count("has retired") == len(serving)
    assert "Traceback" not in log


# Children


def test_a_killed_worker_takes_only_its_own_children_with_it(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    _, victim = server.begin("/start-and-hold")
    held, other = server.begin("/start-and-hold")
    files = {pid: start.cwd / f"child-{pid}" for pid in (victim, other)}
    wait_until(lambda: all(each.exists() and each.read_text() for each in files.values()), "both have a child")
    children = {pid: int(each.read_text()) for pid, each in files.items()}
    os.kill(victim, SIGKILL)
    server.wait_log("is ready after", count=3)
    wait_until(lambda: is_gone(children[victim]), "its child has gone")
    assert psutil.Process(children[other]).status() == psutil.STATUS_SLEEPING
    server.release()
    assert len(read(held).body) == 500_000
    os.kill(children[other], SIGKILL)


@pytest.mark.parametrize("signum", [None, SIGKILL])
def test_the_end_of_an_adopted_stranger_is_not_worth_a_line(start: Starter, signum: signal.Signals | None) -> None:
    """The arbiter is PID 1, as in a container: what the application has double-forked becomes its child."""
    server = start(APP, prelude="subreaper")
    worker = server.get("/").text
    server.get("/leave-orphan")
    orphan = start.cwd / "orphan"
    wait_until(lambda: orphan.exists() and orphan.read_text(), "the orphan lives")
    pid = int(orphan.read_text())
    wait_until(lambda: psutil.Process(pid).ppid() == server.pid, "the arbiter has adopted it")
    before = server.log.text
    if signum is None:
        server.release()  # and it ends with exit code 3
    else:
        os.kill(pid, signum)
    wait_until(lambda: is_gone(pid), "the arbiter has reaped it")
    server.signal(SIGTTIN)
    server.wait_log("is ready after", count=2)
    first, *_ = server.log.text.removeprefix(before).splitlines()
    assert "2 workers wanted" in first
    assert int(worker) in server.workers()


# A reply is cut


@pytest.mark.parametrize("path", ["/half", "/half-sized"])
def test_a_worker_killed_within_a_reply_cuts_that_reply_alone(start: Starter, path: str) -> None:
    """Its client can tell that the reply is not whole; requests in hand elsewhere and new ones go on."""
    server = start(APP, "--workers", "3")
    held, _ = server.begin("/hold")
    cut, victim = server.begin(path)
    response = cut.getresponse()
    received = len(response.read(2**19))
    ended, statuses = threading.Event(), []

    def ask() -> None:
        while not ended.is_set():
            statuses.append(server.get("/").status)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        wait_until(lambda: len(statuses) > 20, "others are served before")
        os.kill(victim, SIGKILL)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            while data := response.read(2**16):
                received += len(data)
            # http.client does not mind the end of a sized reply that is read in pieces
            raise http.client.IncompleteRead(b"") if received < 2 * 2**20 else AssertionError("it is whole")
        server.wait_log("is ready after", count=4)
        count = len(statuses)
        wait_until(lambda: len(statuses) > count + 20, "others are served after")
    finally:
        ended.set()
        asking.join()
    assert set(statuses) == {200}
    server.release()
    assert len(read(held).body) == 500_000
    assert re.search(rf"worker {victim} .* {BY_HAND}, .* in GET {path} ", server.log.text)


# Want of memory


@pytest.fixture
def step() -> Iterator[str]:
    """Into a control group that may use 96 MiB of memory."""
    with cage(96) as step:
        yield step


@pytest.fixture
def poor(step: str, start: Starter) -> Iterator[Server]:
    """A server in that group; it has ended before the group goes."""
    server = start(APP, prelude=step)
    yield server
    server.check_end()


def wait_killed(server: Server, worker: int, deaths: int) -> str:
    """The record of a worker's death, once it was replaced."""
    line = server.wait_log(rf"^.*worker {worker} .*killed by.*$")[0]
    server.wait_log("is ready after", count=deaths + 1)
    return line


def only_worker(server: Server) -> int:
    (worker,) = server.workers()
    return worker


def test_a_kill_by_the_kernel_for_want_of_memory_is_named_with_its_request(poor: Server) -> None:
    """It is told from a kill by hand before and after."""
    for deaths in (1, 3):
        worker = only_worker(poor)
        os.kill(worker, SIGKILL)
        assert BY_HAND in wait_killed(poor, worker, deaths)
        worker = only_worker(poor)
        poor.send("/eat")
        line = wait_killed(poor, worker, deaths + 1)
        assert re.search(rf"{OOM}, \d+\.\d s in GET /eat for 127\.0\.0\.1: killed by SIGKILL", line), line
    assert poor.get("/").status == 200


def test_without_descriptors_an_old_kill_by_the_kernel_is_not_taken_for_a_new_one(poor: Server) -> None:
    """The counter cannot be read then; it has not gone back to nothing."""
    worker = only_worker(poor)
    poor.send("/eat")
    assert re.search(OOM, wait_killed(poor, worker, 1))
    soft, hard = resource.prlimit(poor.pid, resource.RLIMIT_NOFILE)
    worker = only_worker(poor)
    resource.prlimit(poor.pid, resource.RLIMIT_NOFILE, (3, hard))
    os.kill(worker, SIGKILL)
    poor.wait_log("cannot start a worker: Too many open files")
    resource.prlimit(poor.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert BY_HAND in wait_killed(poor, worker, 2)
    worker = only_worker(poor)
    os.kill(worker, SIGKILL)
    line = wait_killed(poor, worker, 3)
    assert BY_HAND in line, line
