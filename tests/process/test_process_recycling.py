"""Workers replaced for what they have served or grown to, warmed up before they serve, or dying as they boot."""

import json
import os
import re
import time
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGTERM, SIGTTIN, SIGTTOU

import psutil
import pytest
from harness import Server, Starter, read, wait_until
from test_process_signals import ready_counts

# Cannot be imported while the file `gate` is there
GATED = """
import pathlib, time
while pathlib.Path("gate").exists():
    time.sleep(0.01)
from plain import app
"""
BREAKABLE = """
import pathlib
if pathlib.Path("broken").exists():
    raise RuntimeError("as the test wants")
from plain import app
"""
SMAPS = Path("/proc/self/smaps_rollup")
needs_pss = pytest.mark.skipif(not SMAPS.exists(), reason="the system tells no PSS")


def replaced(server: Server) -> list[str]:
    """The pids of the workers whose turn to be replaced has come."""
    return re.findall(r"worker (\d+) .* is being replaced", server.log.text)


# --max-requests


def test_a_worker_is_replaced_after_its_last_request_and_not_before(start: Starter) -> None:
    server = start("plain:app", "--max-requests", "5")
    (first,) = server.workers()
    for _ in range(4):
        assert server.get("/").text == str(first)
    fifth = server.hold()
    server.signal(SIGTTOU)
    server.wait_log("1 workers? wanted")
    assert replaced(server) == []
    server.release()
    assert read(fifth).status == 200
    server.wait_log(rf"worker {first} .* is being replaced: it has served 5 requests")
    server.wait_log(rf"worker {first} .* has retired, .* after 5 requests")
    (second,) = server.workers()
    assert server.get("/").text == str(second)


def test_the_successor_of_a_recycled_worker_is_ready_before_it_goes(start: Starter) -> None:
    server = start("plain:app", "--max-requests", "3")
    for count in (1, 2, 3):
        while len(replaced(server)) < count:
            assert server.get("/").status == 200
        server.wait_log("has retired", count=count)
    log = server.log.text
    assert min(ready_counts(log)[1:]) == 1, log
    assert re.findall("being replaced|is ready after|has retired", log)[:4] == [
        "is ready after",
        "being replaced",
        "is ready after",
        "has retired",
    ]


def test_workers_that_reach_their_limit_together_are_replaced_one_at_a_time(start: Starter) -> None:
    server = start("plain:app", "--workers", "4", "--max-requests", "1")
    before = server.workers()
    held = [server.begin("/hold") for _ in range(4)]
    assert {worker for _, worker in held} == before
    server.release()
    assert [read(connection).status for connection, _ in held] == [200] * 4
    server.wait_log("has retired", count=4)
    log = server.log.text
    events = re.findall("being replaced|is ready after", log)
    assert events == ["is ready after"] * 4 + ["being replaced", "is ready after"] * 4, log
    counts = ready_counts(log)
    assert min(counts[counts.index(4) :]) == 4, log
    assert not before & server.workers()


def test_jitter_gives_each_worker_a_limit_of_its_own(start: Starter) -> None:
    server = start("plain:app", "--max-requests", "3", "--max-requests-jitter", "30")
    while len(replaced(server)) < 6:
        assert server.get("/").status == 200
    limits = [int(limit) for limit in re.findall(r"it has served (\d+) requests", server.log.text)]
    assert all(3 <= limit <= 33 for limit in limits), limits
    assert len(set(limits)) > 1, limits


def test_a_recycled_worker_finishes_its_request_in_hand(start: Starter) -> None:
    start.write("site_app.py", GATED)
    server = start("site_app:app", "--max-requests", "2")
    (start.cwd / "gate").touch()
    (first,) = server.workers()
    server.get("/")
    server.get("/")
    server.wait_log("is being replaced")
    connection, worker = server.begin("/hold")
    assert worker == first
    (start.cwd / "gate").unlink()
    server.wait_log("is ready after", count=2)
    # The old one takes nothing new while it finishes
    assert server.get("/").text != str(first)
    assert first in server.workers()
    server.release()
    assert len(read(connection).body) == 500_000
    server.wait_log(rf"worker {first} .* has retired, .* after 3 requests")


def test_a_connection_outlives_the_workers_that_are_recycled_under_it(start: Starter) -> None:
    server = start("plain:app", "--workers", "2", "--max-requests", "5", "--max-keepalive-requests", "0")
    connection = server.send("/")
    answered = {read(connection).text}
    first = connection.sock
    while len(answered) < 5:
        connection.request("GET", "/")
        answered.add(read(connection).text)
        assert connection.sock is first


# --max-worker-memory


@needs_pss
def test_a_worker_that_has_grown_too_large_for_a_while_is_replaced(start: Starter) -> None:
    server = start("grow:app", "--workers", "2", "--max-worker-memory", "64M")
    began = time.monotonic()
    large = server.get("/grow?80").text
    line = server.wait_log(rf"worker {large} .* is being replaced: it uses (\d+) MiB, 64 are allowed")
    # Three samples, a second apart: one is no reason
    assert time.monotonic() - began > 1.9
    assert 80 < int(line[1]) < 128
    server.wait_log("is ready after", count=3)
    server.wait_log(rf"worker {large} .* has retired")
    log = server.log.text
    assert replaced(server) == [large]
    counts = ready_counts(log)
    assert min(counts[counts.index(2) :]) == 2, log


@needs_pss
def test_a_worker_that_is_replaced_for_its_memory_finishes_its_request_in_hand(start: Starter) -> None:
    server = start("grow:app", "--max-worker-memory", "64M")
    large = server.get("/grow?80").text
    connection = server.hold()
    server.wait_log(rf"worker {large} .* is being replaced")
    server.wait_log("is ready after", count=2)
    assert server.get("/").text != large
    server.release()
    assert len(read(connection).body) == 500_000
    server.wait_log(rf"worker {large} .* has retired")


@needs_pss
def test_a_worker_twice_as_large_as_allowed_is_killed_and_the_log_says_why(start: Starter) -> None:
    server = start("grow:app", "--workers", "2", "--max-worker-memory", "64M")
    _, large = server.begin("/grow?150")  # it may be weighed before it has answered
    line = server.wait_log(rf"^.*worker {large} .*SIGKILL.*$")[0]
    told = re.search(r"it uses (\d+) MiB, 2 times 64 are the limit", line)
    assert told, line
    assert int(told[1]) > 128
    server.wait_log("is ready after", count=3)
    assert server.get("/").text != str(large)


@needs_pss
def test_a_limit_below_what_a_new_worker_uses_ends_nobody_before_it_has_grown(start: Starter) -> None:
    """A mistake of units, say: no request is lost to it."""
    server = start("grow:app", "--workers", "2", "--max-worker-memory", "1M")
    server.wait_log(r"WARNING: .*uses \d+ MiB as it begins, 1 are allowed: it is replaced above \d+", count=2)
    large = server.get("/grow?200").text
    server.wait_log(rf"worker {large} .* has retired")
    assert replaced(server) == [large]
    assert "SIGKILL" not in server.log.text


@needs_pss
def test_memory_that_workers_share_counts_once(start: Starter) -> None:
    """Each is above the limit with all that it shares; the one that really grows shows that all were weighed."""
    (start.cwd / "shared").write_bytes(os.urandom(1 << 20) * 96)
    server = start("grow:app", "--workers", "4", "--max-worker-memory", "80M")
    began = time.monotonic()
    assert all(psutil.Process(pid).memory_info().rss > 96 << 20 for pid in server.workers())
    wait_until(
        lambda: time.monotonic() - began > 1.2, "the first, which began alone, has been weighed beside the others"
    )
    large = server.get("/grow?70").text
    server.wait_log(rf"worker {large} .* has retired")
    assert replaced(server) == [large]
    assert "SIGKILL" not in server.log.text


# --warmup


def seen(start: Starter, pid: int) -> list[dict[str, object]]:
    """What warm.py has written down in that worker."""
    path = start.cwd / f"seen-{pid}"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_each_new_worker_is_warmed_up_with_every_path_in_order(start: Starter) -> None:
    server = start("warm:app", "--workers", "2", "--warmup", "/version", "--warmup", "/?page=2")
    server.hup()
    for pid in server.workers():
        targets = [record["RAW_URI"] for record in seen(start, pid)]
        assert targets == ["/version", "/?page=2"]


def test_a_warm_up_looks_like_a_clients_request(start: Starter) -> None:
    server = start("warm:app", "--warmup", "/version?page=2")
    server.get("/version?page=2")
    (worker,) = server.workers()
    warm, real = seen(start, worker)
    same = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL")
    assert [warm[key] for key in same] == [real[key] for key in same]
    assert warm["wsgi.url_scheme"] == "http"
    assert warm["REMOTE_ADDR"] == "127.0.0.1"
    assert warm["HTTP_HOST"]
    assert warm["body"] == ""
    missing = set(real["keys"]) - set(warm["keys"])
    assert all(key.startswith("HTTP_") for key in missing), missing


def test_no_worker_is_ready_before_its_warm_up_is_answered(start: Starter) -> None:
    server = start("plain:app", "--warmup", "/hold", ready=0)
    wait_until(lambda: list(start.cwd.glob("begun-*")), "the warm-up is in hand")
    server.signal(SIGTTIN)
    server.wait_log("2 workers wanted")
    assert "is ready after" not in server.log.text
    server.release()
    server.wait_ready(2)


def test_a_warm_up_counts_for_nothing(start: Starter) -> None:
    """Neither as a request served, nor towards --max-requests, nor in the access log."""
    flags = ("--warmup", "/?warm", "--warmup", "/?warm", "--max-requests", "2", "--access-logfile", "access.log")
    server = start("warm:app", *flags)
    (worker,) = server.workers()
    assert server.get("/?first").text == str(worker)
    held = server.hold()
    server.signal(SIGTTOU)
    server.wait_log("1 workers? wanted")
    assert replaced(server) == []
    server.release()
    assert read(held).status == 200
    server.wait_log(rf"worker {worker} .* has retired, .* after 2 requests")
    assert [record["requests before"] for record in seen(start, worker)] == [0, 0, 0, 1]
    access = (start.cwd / "access.log").read_text()
    assert "first" in access
    assert "warm" not in access


def test_a_large_reply_to_a_warm_up_is_taken_whole(start: Starter) -> None:
    server = start("plain:app", "--warmup", "/stream", "--warmup", "/big")
    assert server.get("/").status == 200


def test_a_status_below_500_is_warm_enough(start: Starter) -> None:
    start.write("site_app.py", answering("404 Not Found"))
    assert start("site_app:app", "--warmup", "/nothing").get("/").status == 404


def answering(status: str, body: str = '[b"body"]') -> str:
    """An application that answers all alike."""
    return f"def app(environ, start_response):\n    start_response({status!r}, [])\n    return {body}\n"


COLD = {
    "status": (answering("503 Service Unavailable"), "GET /warm was answered with 503"),
    "exception": ("def app(environ, start_response):\n    1 / 0\n", "ZeroDivisionError"),
    "exception after the head": (
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    yield b'some'\n    1 / 0\n",
        "ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("name", COLD)
def test_a_first_start_whose_warm_up_fails_ends_with_3(start: Starter, name: str) -> None:
    source, reason = COLD[name]
    start.write("site_app.py", source)
    server = start("site_app:app", "--workers", "2", "--warmup", "/warm", ready=0)
    assert server.wait() == 3
    log = server.log.finish()
    assert reason in log
    assert "GET /warm" in log
    assert "is ready after" not in log


@pytest.mark.parametrize("name", COLD)
def test_the_old_code_serves_on_when_the_new_fails_its_warm_up(start: Starter, name: str) -> None:
    source, reason = COLD[name]
    start.write("site_app.py", answering("200 OK", '[b"old"]'))
    server = start("site_app:app", "--workers", "2", "--warmup", "/warm")
    before = server.workers()
    start.write("site_app.py", source)
    server.signal(SIGHUP)
    server.wait_log("roll to generation 2 is off")
    assert reason in server.log.text
    assert {server.get("/").text for _ in range(5)} == {"old"}
    assert server.workers() == before
    start.write("site_app.py", answering("200 OK", '[b"new"]'))
    server.hup()
    assert {server.get("/").text for _ in range(5)} == {"new"}


# Workers that die as they boot, or right after


def failed(log: str) -> list[str]:
    """The pids of the workers that could not load the application."""
    return re.findall(r"worker (\d+) .* could not load", log)


def break_down(server: Server) -> None:
    """No worker can boot any more, and all are killed."""
    (server.cwd / "broken").touch()
    for worker in server.workers():
        os.kill(worker, SIGKILL)


def breakable(start: Starter, *flags: str) -> Server:
    start.write("site_app.py", BREAKABLE)
    return start("site_app:app", *flags)


def test_a_crash_loop_forks_once_a_delay_in_each_slot(start: Starter) -> None:
    server = breakable(start, "--workers", "2")
    break_down(server)
    told = server.wait_log("5 in a row, the next try in 2 s", count=2)
    log = told.string[: told.end()]
    delays = [("2", "0.25"), ("3", "0.5"), ("4", "1"), ("5", "2")]
    assert sorted(re.findall(r"die young: (\d+) in a row, the next try in (\S+) s", log)) == sorted(delays * 2), log
    # The first deaths were ours, and answered at once
    assert len(failed(log)) == len(set(failed(log))) == 8
    assert log.count("Traceback") == 1, log


def test_workers_that_die_right_after_they_were_ready_are_a_crash_loop_as_well(start: Starter) -> None:
    server = start()
    for count in (1, 2, 3, 4):
        server.send("/leave")
        server.wait_log("ended with exit code 3", count=count)
    server.wait_log(r"2 in a row, the next try in 0\.25 s")
    server.wait_log(r"3 in a row, the next try in 0\.5 s")
    server.wait_log(r"4 in a row, the next try in 1 s")
    assert server.log.text.count("ended with exit code 3") == 4
    assert server.get("/").status == 200


def test_signals_are_obeyed_in_a_crash_loop(start: Starter) -> None:
    server = breakable(start, "--workers", "2")
    break_down(server)
    server.wait_log("4 in a row", count=2)
    server.signal(SIGTTIN)
    server.wait_log("3 workers wanted")
    (start.cwd / "broken").unlink()
    server.signal(SIGHUP)
    # The new code deserves a try at once
    server.wait_log("is ready after", count=5)
    assert server.get("/").status == 200
    assert server.stop() == 0


def test_a_crash_loop_spares_the_workers_that_serve(start: Starter) -> None:
    server = breakable(start, "--workers", "3")
    victim, *others = server.workers()
    (start.cwd / "broken").touch()
    os.kill(victim, SIGKILL)
    server.wait_log("4 in a row")
    assert server.workers() >= set(others)
    assert {int(server.get("/").text) for _ in range(10)} <= set(others)


@pytest.mark.slow
def test_a_crash_loop_settles_at_a_try_in_ten_seconds_and_costs_next_to_nothing(start: Starter) -> None:
    server = breakable(start, "--workers", "2")
    break_down(server)
    server.wait_log("8 in a row, the next try in 10 s", count=2, timeout=40)
    arbiter = psutil.Process(server.pid)
    before, began = sum(arbiter.cpu_times()[:2]), time.monotonic()
    server.wait_log("9 in a row, the next try in 10 s", count=2, timeout=20)
    assert (sum(arbiter.cpu_times()[:2]) - before) / (time.monotonic() - began) < 0.01
    assert len(failed(server.log.text)) == 16


# --max-boot-failures


def test_so_many_failed_boots_in_a_row_end_the_server_with_4(start: Starter) -> None:
    server = breakable(start, "--max-boot-failures", "3")
    break_down(server)
    assert server.wait() == 4
    assert len(failed(server.log.text)) == 3
    assert "3 boots have failed in a row: giving up" in server.log.finish()


def test_a_server_that_gives_up_finishes_its_requests_in_hand(start: Starter) -> None:
    server = breakable(start, "--workers", "2", "--max-boot-failures", "3")
    connection, busy = server.begin("/hold")
    (start.cwd / "broken").touch()
    (idle,) = server.workers() - {busy}
    os.kill(idle, SIGKILL)
    server.wait_log("giving up")
    time.sleep(1.5)  # a stop that does not wait for requests would have ended it by now
    server.release()
    assert len(read(connection).body) == 500_000
    assert server.wait() == 4


def test_a_successful_boot_forgives_the_failures_before_it(start: Starter) -> None:
    start.write("site_app.py", BREAKABLE.replace("    raise", '    pathlib.Path("broken").unlink()\n    raise'))
    server = start("site_app:app", "--max-boot-failures", "2")
    for count in (1, 2):
        break_down(server)  # for one boot, which mends it
        server.wait_log("could not load", count=count)
        server.wait_log("is ready after", count=count + 1)
    assert server.get("/").status == 200
    assert server.stop() == 0


def test_a_worker_that_exits_as_it_boots_counts_as_a_failed_boot(start: Starter) -> None:
    start.write("site_app.py", BREAKABLE.replace('raise RuntimeError("as the test wants")', "import os; os._exit(1)"))
    server = start("site_app:app", "--max-boot-failures", "3")
    break_down(server)
    assert server.wait() == 4
    assert server.log.finish().count("ended with exit code 1") == 3


def test_workers_killed_once_they_serve_are_no_failed_boots(start: Starter) -> None:
    server = start("plain:app", "--max-boot-failures", "2")
    for count in (1, 2, 3):
        (worker,) = server.workers()
        os.kill(worker, SIGKILL)
        server.wait_log("is ready after", count=count + 1)
    assert server.stop(SIGTERM) == 0


def test_without_a_limit_no_number_of_failed_boots_ends_the_server(start: Starter) -> None:
    server = breakable(start, "--workers", "4", "--max-boot-failures", "0")
    break_down(server)
    server.wait_log("4 in a row", count=4)
    (start.cwd / "broken").unlink()
    server.wait_log("is ready after", count=8)
    assert server.stop() == 0
