"""Workers and arbiters that die, hang, or are stopped."""

import http.client
import os
import re
import time
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

import pytest
from harness import Starter, free_port, read, wait_until
from test_process_counting import look

# Hangs in the way its path says: the function, and the text of the line or lines
HANGS = {
    "/spin": ("spin", ("while True:", "pass")),
    "/nap": ("nap", ("time.sleep(60)",)),
    "/grind": ("grind", ("return str(re.match(",)),
}
CRASHES_ON_DEMAND = """
import os, pathlib
if pathlib.Path("broken").exists():
    os._exit(1)
from plain import app
"""
HANGS_ON_IMPORT = """
import time
def connect_to_nothing():
    time.sleep(60)
connect_to_nothing()
"""


def test_a_killed_worker_is_replaced_at_once_and_the_log_says_what_it_did(start: Starter) -> None:
    server = start()
    _, worker = server.begin("/hold")
    os.kill(worker, SIGKILL)
    line = server.wait_log(rf"^.*worker {worker} .*SIGKILL.*$")[0]
    assert "which we did not send" in line
    assert "in GET /hold" in line
    server.wait_log("is ready after", count=2)
    assert "the next try in" not in server.log.text
    server.release()
    assert server.get("/").text != str(worker)


@pytest.mark.parametrize("requests", [0, 1])
def test_a_worker_that_is_killed_while_idle_is_said_to_have_been_idle(start: Starter, requests: int) -> None:
    server = start()
    for _ in range(requests):
        server.get("/")
    (worker,) = server.workers()
    # Its client has the reply before it has made its note of it
    wait_until(lambda: look(server).totals.requests == requests, "it has counted them")
    os.kill(worker, SIGKILL)
    line = server.wait_log(rf"^.*worker {worker} .*SIGKILL.*$")[0]
    assert "idle for" in line
    assert f"after {requests} requests" in line


def test_all_workers_killed_at_once_are_all_replaced_at_once(start: Starter) -> None:
    server = start("plain:app", "--workers", "4")
    for worker in server.workers():
        os.kill(worker, SIGKILL)
    server.wait_log("is ready after", count=8)
    assert "the next try in" not in server.log.text


# The arbiter's death


@pytest.mark.parametrize("rolls", [0, 1])
def test_idle_workers_leave_when_the_arbiter_is_killed(start: Starter, rolls: int) -> None:
    """None holds the arbiter's end of its own or another's lifeline."""
    server = start("plain:app", "--workers", "3")
    for roll in range(rolls):
        server.hup(roll + 1)
    server.kill_arbiter()
    wait_until(lambda: not server.family(), "the orphans have gone")


def test_a_busy_orphan_leaves_after_its_reply(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    connection, worker = server.begin("/hold")
    server.kill_arbiter()
    wait_until(lambda: server.family() == {worker}, "the idle orphan has gone")
    server.release()
    assert len(read(connection).body) == 500_000
    wait_until(lambda: not server.family(), "the busy orphan has gone")


def test_an_orphan_answers_what_waits_in_the_accept_queue(start: Starter) -> None:
    server = start()
    held = server.hold()
    waiting = [server.send("/") for _ in range(10)]
    server.kill_arbiter()
    server.release()
    assert [read(connection).status for connection in [held, *waiting]] == [200] * 11


def test_a_new_server_binds_at_once_after_the_arbiter_was_killed(start: Starter) -> None:
    """A start retries for a moment: the orphans may hold the address still."""
    flags = ("--bind", f"127.0.0.1:{free_port()}")
    start("plain:app", "--workers", "3", *flags, bind=False).kill_arbiter()
    successor = start("plain:app", *flags, bind=False)
    assert successor.get("/").status == 200


def test_a_new_server_binds_while_an_orphan_is_busy(start: Starter) -> None:
    """It closes its listeners at once when the arbiter has gone, not after its reply."""
    flags = ("--bind", f"127.0.0.1:{free_port()}")
    server = start("plain:app", *flags, bind=False)
    connection = server.hold()
    server.kill_arbiter()
    successor = start("minicorn.demo:app", *flags, bind=False)
    assert successor.get("/").status == 200
    server.release()
    assert len(read(connection).body) == 500_000


def test_a_new_server_binds_while_an_orphan_hangs_at_its_import(start: Starter) -> None:
    """Nobody is left who would kill it for that."""
    flags = ("--bind", f"127.0.0.1:{free_port()}")
    start.write("site_app.py", "open('importing', 'w').close()" + HANGS_ON_IMPORT)
    server = start("site_app:app", *flags, bind=False, ready=0)
    wait_until((start.cwd / "importing").exists, "the worker imports")
    server.kill_arbiter()
    assert start("plain:app", *flags, bind=False).get("/").status == 200


# Crashes


def test_a_segmentation_fault_is_logged_with_its_stack(start: Starter) -> None:
    server = start()
    server.send("/crash")
    line = server.wait_log(r"^.*SIGSEGV.*$")[0]
    assert "which we did not send" in line
    assert "in GET /crash" in line
    server.wait_log(r'File ".*plain\.py", line \d+ in crash')
    assert server.get("/").status == 200


@pytest.mark.parametrize("call", ["enable()", "enable(open('own', 'w'))"])
def test_a_stack_is_logged_though_the_application_has_led_it_elsewhere_at_its_import(start: Starter, call: str) -> None:
    source = (start.cwd / "plain.py").read_text()
    start.write("enables.py", f"import faulthandler\nfaulthandler.{call}\n{source}")
    server = start("enables:app")
    server.send("/crash")
    server.wait_log(r'^.*which we did not send.*in GET /crash.*\n(.*\n)*?.*File ".*enables\.py", line \d+ in crash')


def test_an_application_that_exits_with_3_does_not_stop_the_arbiter(start: Starter) -> None:
    server = start()
    for count in (1, 2):
        server.send("/leave")
        assert "in GET /leave" in server.wait_log("^.*ended with exit code 3.*$", count=count)[0]
    assert server.get("/").status == 200


def test_an_application_that_exits_with_0_is_told_from_a_worker_that_retires(start: Starter) -> None:
    start.write(
        "leaving_app.py",
        "import os, plain\nplain.ROUTES['/leave'] = lambda environ: os._exit(0)\nfrom plain import app\n",
    )
    server = start("leaving_app:app")
    with pytest.raises(http.client.RemoteDisconnected):
        server.get("/leave")
    server.wait_log(
        r"^ERROR: +worker \d+ \(slot 1, gen 1\) ended with exit code 0, .* in GET /leave for 127\.0\.0\.1, "
    )
    start.write("leaving.py", "import os\nos._exit(0)\n")
    server = start("leaving:app", ready=0)
    assert server.wait() == 3
    assert re.search(
        r"^ERROR: +worker \d+ \(slot 1, gen 1\) ended with exit code 0, .* booting", server.log.finish(), re.M
    )


def test_a_strangers_exit_code_3_means_nothing(start: Starter) -> None:
    server = start("plain:app", "--log-level", "debug", prelude="subreaper")
    worker = server.get("/").text
    assert server.get("/leave-orphan").text == "left"
    orphan = start.cwd / "orphan"
    wait_until(lambda: orphan.exists() and orphan.read_text(), "the orphan lives")
    pid = int(orphan.read_text())
    wait_until(lambda: pid in server.workers(), "the arbiter has adopted it")
    server.release()
    server.wait_log(f"reaped process {pid}")
    assert server.get("/").text == worker
    assert "code 3" not in server.log.text


def test_a_crash_loop_backs_off_and_the_arbiter_answers_at_once(start: Starter) -> None:
    start.write("site_app.py", CRASHES_ON_DEMAND)
    server = start("site_app:app")
    (start.cwd / "broken").touch()
    (worker,) = server.workers()
    os.kill(worker, SIGKILL)
    server.wait_log(r"2 in a row, the next try in 0\.25 s")
    server.wait_log(r"3 in a row, the next try in 0\.5 s")
    server.wait_log(r"4 in a row, the next try in 1 s")
    assert server.stop() == 0


def test_a_crash_loop_ends_by_itself(start: Starter) -> None:
    start.write("site_app.py", CRASHES_ON_DEMAND)
    server = start("site_app:app")
    (start.cwd / "broken").touch()
    (worker,) = server.workers()
    os.kill(worker, SIGKILL)
    server.wait_log(r"2 in a row")
    waiting = server.send("/")
    (start.cwd / "broken").unlink()
    assert read(waiting).status == 200


# Hangs


def test_a_worker_that_never_boots_is_killed(start: Starter) -> None:
    start.write("site_app.py", HANGS_ON_IMPORT)
    server = start("site_app:app", "--boot-timeout", "1", ready=0)
    assert server.wait() == 3
    log = server.log.finish()
    assert re.search(r'File ".*site_app\.py", line 4 in connect_to_nothing', log), log
    assert "booting" in log


@pytest.mark.parametrize("path", HANGS)
def test_a_request_beyond_the_timeout_is_killed_and_named(start: Starter, path: str) -> None:
    function, texts = HANGS[path]
    server = start("plain:app", "--timeout", "1")
    _, worker = server.begin(f"{path}?report=7")
    line = server.wait_log(rf"^.*worker {worker} .*$", count=2)[0]
    assert f"in GET {path}?report=7" in line
    assert "SIGABRT" in line
    found = server.wait_log(rf'File "(.*plain\.py)", line (\d+) in {function}$')
    assert start.line(found[1], int(found[2])).startswith(texts)
    assert server.get("/").status == 200


def test_a_worker_that_does_not_die_of_abort_is_killed(start: Starter) -> None:
    server = start("plain:app", "--timeout", "1")
    _, worker = server.begin("/hold")
    os.kill(worker, SIGSTOP)
    line = server.wait_log(rf"^.*worker {worker} .*SIGKILL.*$")[0]
    assert "in GET /hold" in line
    assert "did not die of SIGABRT" in line
    server.release()
    assert server.get("/").text != str(worker)


@pytest.mark.slow
def test_an_idle_worker_that_stands_still_is_killed(start: Starter) -> None:
    server = start("plain:app", "--timeout", "1")
    (worker,) = server.workers()
    os.kill(worker, SIGSTOP)
    line = server.wait_log(rf"^.*worker {worker} .*SIGKILL.*$", timeout=20)[0]
    assert "idle" in line
    assert server.get("/").text != str(worker)


def test_a_hang_ends_no_other_workers_request(start: Starter) -> None:
    server = start("plain:app", "--workers", "2", "--timeout", "2")
    server.begin("/nap")
    server.wait_log("SIGABRT|SIGKILL")
    assert server.log.text.count("late") == 1
    assert server.get("/").status == 200


def test_no_timeout_means_no_limit(start: Starter) -> None:
    server = start("plain:app", "--timeout", "0")
    connection = server.hold()
    time.sleep(2.5)  # long enough for the arbiter to have looked several times
    server.release()
    assert len(read(connection).body) == 500_000


@pytest.mark.slow
def test_a_stopped_arbiter_holds_its_sleep_against_nobody(start: Starter) -> None:
    server = start("plain:app", "--timeout", "1", "--workers", "2")
    workers = server.workers()
    server.signal(SIGSTOP)
    time.sleep(3)
    server.signal(SIGCONT)
    server.signal(SIGTERM)
    assert server.wait() == 0
    assert "late by" not in server.log.finish()
    assert server.log.text.count("has retired") == len(workers)


@pytest.mark.slow
@pytest.mark.parametrize("pause", [1.2, 1.9, 4.0])
def test_a_suspended_machine_makes_no_request_late(start: Starter, pause: float) -> None:
    """All processes stand still for a while, as in a container that is paused."""
    server = start("plain:app", "--timeout", "1")
    connection, worker = server.begin("/hold")
    for pid in (server.pid, worker):
        os.kill(pid, SIGSTOP)
    time.sleep(pause)
    for pid in (worker, server.pid):
        os.kill(pid, SIGCONT)
    server.release()
    assert len(read(connection).body) == 500_000
    assert server.stop() == 0
    assert "late by" not in server.log.finish()


def test_a_slow_client_is_no_reason_to_kill_the_worker(start: Starter) -> None:
    """The application waits for its client for longer than it may take itself."""
    server = start("plain:app", "--timeout", "1")
    (worker,) = server.workers()
    response = server.send("/stream").getresponse()
    received = len(response.read(65536))
    time.sleep(3)
    while data := response.read(2**20):
        received += len(data)
    assert received == 40 * 2**20
    assert server.workers() == {worker}
    assert "late" not in server.log.text
