"""Faults: signals in showers, full disks, no descriptors, no processes, whole trees killed; and what is left."""

import http.client
import os
import random
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2

import psutil
import pytest
from harness import ANY_PORT, MINICORN, Server, Starter, descriptors, is_alive, read, wait_until
from load import Load
from test_process_handoff import await_replies, check_harmless

from minicorn.figures import survey

APP = "leaving:app"
NO_SPACE = "cannot start a worker: No space left on device"
# A user that nobody is, since the limit of processes is not for root; it may still read what root may
NOBODY = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups")
READS_ALL = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
# The soft limit of processes, by default as many as the hard one; whose limit it is may set it, root not always
SET_LIMIT = """
import resource, sys
pid, kind = int(sys.argv[1]), resource.RLIMIT_NPROC
hard = resource.prlimit(pid, kind)[1]
resource.prlimit(pid, kind, (int(sys.argv[2]) if sys.argv[2:] else hard, hard))
"""
UNPRIVILEGED = (*NOBODY, *READS_ALL) if os.geteuid() == 0 else ()


def works(*command: str) -> bool:
    return shutil.which(command[0]) is not None and not subprocess.run(command, capture_output=True).returncode


needs_mounts = pytest.mark.skipif(
    not works("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"), reason="this user may not mount"
)
needs_other_user = pytest.mark.skipif(
    bool(UNPRIVILEGED) and not works(*UNPRIVILEGED, "true"), reason="root cannot become another user here"
)


def mounted(script: str) -> tuple[str, ...]:
    """In front of a command: a shell that mounts what nobody else sees, then becomes the command."""
    return "unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh"


def small_disk(start: Starter, before: str = ":") -> tuple[str, ...]:
    """The directory `disk`, with room for 16 pages."""
    (start.cwd / "disk").mkdir()
    return mounted(f"mount -t tmpfs -o size=128k tmpfs disk; {before}")


def inside(server: Server, name: str) -> Path:
    """A file as the server sees it."""
    return Path(f"/proc/{server.pid}/root{server.cwd / name}")


def fill(server: Server) -> None:
    with inside(server, "disk/filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(bytes(4096))


def zombies(server: Server) -> list[int]:
    """Children of the arbiter that have ended and were not reaped."""
    children = {each.pid for each in psutil.Process(server.pid).children()}
    return [pid for pid in children if not is_alive(pid) and psutil.pid_exists(pid)]


def wait_no_zombies(server: Server) -> None:
    wait_until(lambda: not zombies(server), "all that have ended are reaped")


# Signals in showers


def shower(server: Server, seed: int) -> None:
    """200 signals in 5 seconds."""
    choices = random.Random(seed)
    for _ in range(200):
        server.signal(choices.choice([SIGHUP, SIGTTIN, SIGTTOU, SIGUSR1]))
        time.sleep(5 / 200)


def is_settled(server: Server) -> bool:
    """All wishes for new code have been answered, and as many workers are left as are wanted."""
    now = survey.look(server.heartbeats()).standing
    answered = now.rolled is not None and now.rolled.wish == now.reloads
    return answered and not now.rolling and len(server.workers()) == now.size


def test_200_signals_in_5_seconds_cost_no_request(start: Starter) -> None:
    server = start("handoff_app:app", "--workers", "2")
    with Load(server.port, 3, pause=0.01) as load:
        shower(server, seed=1)
        wait_until(lambda: is_settled(server), "the last roll is over", 30)
        await_replies(load, 5)
    check_harmless(server, load.tally)
    assert is_settled(server)
    wait_no_zombies(server)
    assert "ERROR" not in server.log.text


# The arbiter is stopped


def test_a_stopped_arbiter_kills_nobody_for_it_and_a_hung_worker_later(start: Starter) -> None:
    server = start(APP, "--workers", "2", "--timeout", "2")
    before = server.workers()
    patient, _ = server.begin("/hold")
    server.signal(SIGSTOP)
    time.sleep(3)
    server.signal(SIGCONT)
    server.signal(SIGTTIN)
    server.wait_log("3 workers wanted")  # said when it has judged
    server.release()
    assert read(patient).status == 200
    assert before <= server.workers()
    assert "late by" not in server.log.text
    _, hung = server.begin("/nap")
    server.wait_log(rf"worker {hung} .* was late by .* in GET /nap")
    assert server.log.text.count("late by") == 1


# No space


def errors(log: str) -> list[str]:
    return [line for line in log.splitlines() if "ERROR" in line or "Traceback" in line]


@needs_mounts
def test_a_full_worker_tmp_dir_at_the_start_is_one_line_and_exit_code_1(start: Starter) -> None:
    full = small_disk(start, "dd if=/dev/zero of=disk/filler bs=4k 2>&- || true")
    listing = ('"$@" || code=$?', "ls disk >listing", "exit $code")
    keep_code = ("sh", "-c", "; ".join(listing), "sh")
    server = start.command(*full, *keep_code, *MINICORN, APP, *ANY_PORT, "--worker-tmp-dir", "disk")
    assert server.wait() == 1
    (line,) = server.log.finish().splitlines()
    assert "--worker-tmp-dir" in line
    assert "No space left on device" in line
    assert (start.cwd / "listing").read_text() == "filler\n"


@needs_mounts
def test_where_no_directory_can_be_written_to_the_start_says_which_was_tried(start: Starter) -> None:
    readonly = mounted("mount -o remount,bind,ro /; mount -t tmpfs -o ro,mode=555 tmpfs /dev/shm")
    server = start.command(*readonly, *MINICORN, "minicorn.demo:app", *ANY_PORT)
    assert server.wait() == 1
    assert re.fullmatch("minicorn: error: --worker-tmp-dir: cannot use /\\S+: .+\n", server.log.finish())


@needs_mounts
def test_an_upgrade_needs_no_directory_that_can_be_written_to(start: Starter) -> None:
    """As in a container with a read-only root."""
    server = start.command(*mounted("mount -o remount,bind,ro /"), *MINICORN, "minicorn.demo:app", *ANY_PORT)
    server.wait_ready()
    server.signal(SIGUSR2)
    server.wait_log("generation 2 serves")


@needs_mounts
def test_a_worker_tmp_dir_that_fills_up_delays_a_roll_until_there_is_space(start: Starter) -> None:
    server = start.command(*small_disk(start), *MINICORN, APP, *ANY_PORT, "--worker-tmp-dir", "disk")
    server.wait_ready()
    old = server.workers()
    fill(server)
    server.signal(SIGHUP)
    server.wait_log(rf"{NO_SPACE} in /\S+/disk", count=3)
    server.wait_log("the next try in")
    assert int(server.get("/").text) in old
    before = sorted(descriptors(server.pid))
    server.wait_log(f"{NO_SPACE}", count=4)
    wait_until(lambda: sorted(descriptors(server.pid)) == before, "nothing is left of the tries")
    inside(server, "disk/filler").unlink()
    server.wait_log("generation 2 serves")
    assert server.get("/").text not in map(str, old)


@needs_mounts
def test_a_worker_that_dies_while_there_is_no_space_is_replaced_at_once(start: Starter) -> None:
    """Its page is there: no store of the new one is into a hole."""
    server = start.command(*small_disk(start), *MINICORN, APP, *ANY_PORT, "--worker-tmp-dir", "disk")
    server.wait_ready()
    fill(server)
    (worker,) = server.workers()
    os.kill(worker, SIGKILL)
    server.wait_log("is ready after", count=2)
    assert server.get("/").text != str(worker)


def is_whole(connection: http.client.HTTPConnection) -> bool:
    """Whether the reply that has been asked for comes in full."""
    try:
        return len(read(connection).body) == 8 * 2**20
    except (http.client.IncompleteRead, ConnectionError):
        return False


@needs_mounts
def test_slow_readers_do_not_fill_the_disk_and_the_slowest_go(start: Starter) -> None:
    (start.cwd / "disk").mkdir()
    disk = mounted("mount -t tmpfs -o size=32m tmpfs disk")
    server = start.command(
        *disk, *MINICORN, "plain:app", *ANY_PORT, "--max-buffered-size", "6M", env={"TMPDIR": str(start.cwd / "disk")}
    )
    server.wait_ready()
    readers = [server.connect() for _ in range(10)]
    for reader in readers:
        reader.sock = socket.socket()
        reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the system holds less for it
        reader.sock.connect(("127.0.0.1", server.port))
        reader.request("GET", "/big")
        assert server.get("/").status == 200  # by the same worker, which is done with the other
        status = os.statvfs(inside(server, "disk"))
        assert status.f_bavail * status.f_frsize >= 4 * 2**20
    whole = [is_whole(reader) for reader in readers]
    # The files have room for four less a page; what the system holds for a client itself comes on top of that
    assert whole.count(True) >= 3 and whole.count(False) >= 1


# No descriptors


def leave_free(pid: int, count: int) -> None:
    """Let the process open so many descriptors more."""
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    free = [number for number in range(len(used) + count + 1) if number not in used]
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[count], hard))


def lift(pid: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


@pytest.mark.parametrize("free", range(5))
def test_an_arbiter_without_descriptors_tries_again(start: Starter, free: int) -> None:
    """It needs five for a worker; however few it has, none stays open."""
    server = start(APP)
    before = sorted(descriptors(server.pid))
    leave_free(server.pid, free)
    server.signal(SIGTTIN)
    server.wait_log("cannot start a worker: Too many open files", count=2)
    server.wait_log("the next try in")
    assert server.get("/").status == 200
    wait_until(lambda: sorted(descriptors(server.pid)) == before, "what it has opened is closed")
    lift(server.pid)
    server.wait_log("is ready after", count=2)
    assert len(server.workers()) == 2


def test_without_descriptors_a_monitor_that_has_died_comes_back_later(start: Starter) -> None:
    server = start(APP, "--monitor", "127.0.0.1:0")
    port = int(server.wait_log(r"Monitor on http://127\.0\.0\.1:(\d+)")[1])
    wait_until(lambda: server.get("/ready", at=port).status == 200, "the monitor knows that it serves")
    (monitor,) = server.workers() - {int(server.wait_log(r"worker (\d+) \(slot")[1])}
    leave_free(server.pid, 0)
    os.kill(monitor, SIGKILL)
    server.wait_log("cannot start the monitor: Too many open files")
    assert server.get("/").status == 200
    lift(server.pid)
    assert server.get("/ready", at=port).status == 200


# No processes


@pytest.fixture
def ordinary(start: Starter) -> Iterator[Server]:
    """A server to whom the limit of processes applies."""
    start.cwd.chmod(0o777)
    server = start.command(*UNPRIVILEGED, *MINICORN, APP, *ANY_PORT, "--worker-tmp-dir", str(start.cwd))
    server.wait_ready()
    yield server
    allow_processes(server.pid)


def forbid_processes(pid: int) -> None:
    """And threads, which count as well."""
    subprocess.run([*UNPRIVILEGED, sys.executable, "-c", SET_LIMIT, str(pid), "1"], check=True)


def allow_processes(pid: int) -> None:
    subprocess.run([*UNPRIVILEGED, sys.executable, "-c", SET_LIMIT, str(pid)], check=True)


@needs_other_user
def test_an_arbiter_that_cannot_fork_backs_off_and_tries_again(ordinary: Server) -> None:
    old = ordinary.workers()
    before = sorted(descriptors(ordinary.pid))
    forbid_processes(ordinary.pid)
    ordinary.signal(SIGHUP)
    for delay in ("0.25", "0.5", "1"):
        told = ordinary.wait_log(rf"the next try in {delay} s")
    assert told.string[: told.end()].count("cannot start a worker: Resource temporarily unavailable") == 4
    assert int(ordinary.get("/").text) in old
    assert len(descriptors(ordinary.pid)) <= len(before) + 4  # page, stack and trace of the slot
    allow_processes(ordinary.pid)
    ordinary.wait_log("generation 2 serves")
    wait_until(lambda: len(ordinary.workers()) == 1, "the old worker has gone")
    assert ordinary.workers() != old


@needs_other_user
def test_a_killed_worker_is_replaced_when_there_are_processes_again(ordinary: Server) -> None:
    (worker,) = ordinary.workers()
    forbid_processes(ordinary.pid)
    os.kill(worker, SIGKILL)
    ordinary.wait_log("cannot start a worker: Resource temporarily unavailable", count=2)
    waiting = ordinary.send("/")
    allow_processes(ordinary.pid)
    assert read(waiting).text in map(str, ordinary.workers())


@needs_other_user
def test_a_worker_that_cannot_start_a_thread_serves_without_a_helper_and_ends_well(ordinary: Server) -> None:
    (worker,) = ordinary.workers()
    forbid_processes(worker)
    assert [ordinary.get("/").text for _ in range(3)] == [str(worker)] * 3
    os.kill(worker, SIGTERM)
    ordinary.wait_log(f"worker {worker} .* has retired")
    assert (ordinary.cwd / f"exit-{worker}").exists()


# What is left


def test_after_the_whole_tree_was_killed_the_next_start_cleans_up(start: Starter) -> None:
    beats, path, pid = start.cwd / "beats", start.cwd / "s", start.cwd / "pid"
    beats.mkdir()
    flags = ("--workers", "3", "--worker-tmp-dir", str(beats), "--bind", f"unix:{path}", "--pid", str(pid))
    server = start(APP, *flags)
    server.begin("/hold")
    server.kill_all()
    server.wait()
    assert len(list(beats.iterdir())) == 1
    assert path.exists()
    successor = start(APP, *flags)
    assert list(beats.iterdir()) == [successor.heartbeats()]
    assert int(pid.read_text()) == successor.pid
    assert successor.get("/", at=path).status == 200
    assert successor.stop() == 0
    assert not list(beats.iterdir())
    assert not path.exists()
    assert not pid.exists()


def grow(server: Server, rolls: range) -> None:
    for roll in rolls:
        server.hup(roll)
        wait_no_zombies(server)


@pytest.mark.parametrize("rolls", [20, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_rolls_leave_nothing_behind_in_the_arbiter(start: Starter, rolls: int) -> None:
    """No memory, no descriptors, no zombies; no files but those of the workers that have been at once."""
    server = start("plain:app")
    process = psutil.Process(server.pid)
    grow(server, range(1, 6))
    memory, open_before = process.memory_full_info().uss, sorted(descriptors(server.pid))
    grow(server, range(6, 6 + rolls))
    wait_until(lambda: len(server.workers()) == 1, "the last old worker has gone")
    wait_no_zombies(server)
    wait_until(lambda: len(descriptors(server.pid)) == len(open_before), "nothing is left open")
    assert process.memory_full_info().uss - memory < 2**20
    pages = [entry.name for entry in server.heartbeats().iterdir() if entry.name.isdigit()]
    assert sorted(pages) == ["1", "2"]


# Children


ENDS = {
    "killed": "was killed by SIGKILL, which we did not send",
    "crashed": "was killed by SIGSEGV",
    "late": "was late by",
}


@pytest.mark.parametrize("path", ["/run", "/fork"])
@pytest.mark.parametrize("end", ENDS)
def test_what_a_worker_has_started_dies_when_it_is_killed(start: Starter, end: str, path: str) -> None:
    server = start(APP, "--timeout", "1")
    (worker,) = server.workers()
    child = int(server.get(path).text)
    assert is_alive(child)
    if end == "killed":
        os.kill(worker, SIGKILL)
    else:
        server.send("/crash" if end == "crashed" else "/nap")
    server.wait_log(f"worker {worker} .* {ENDS[end]}")
    wait_until(lambda: not is_alive(child), "its child has gone")
    assert server.get("/").status == 200


# Forensics


def wait_weighed(pid: int) -> None:
    """Until the arbiter has looked at the worker's memory: it does each second."""
    wait_until(lambda: time.time() - psutil.Process(pid).create_time() > 2.5, "it has lived for a while")


def test_a_death_record_tells_all(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    server.hup()
    _, worker = server.begin("/hold?report=7")
    wait_weighed(worker)
    os.kill(worker, SIGKILL)
    line = server.wait_log(rf"^.*worker {worker} .*killed.*$")[0]
    who = rf"worker {worker} \(slot \d, gen 2\)"
    what = r"was killed by SIGKILL, which we did not send, \d\.\d s in GET /hold\?report=7 for 127\.0\.0\.1"
    assert re.fullmatch(rf"ERROR: +{who} {what}, aged [2-9] s after 0 requests, \d\d MiB", line), line


def test_the_record_of_a_death_of_our_doing_tells_all_and_why(start: Starter) -> None:
    server = start(APP, "--timeout", "3")
    (worker,) = server.workers()
    assert server.get("/").status == 200
    server.begin("/nap")
    line = server.wait_log(rf"^.*worker {worker} .*killed.*$")[0]
    who = rf"worker {worker} \(slot 1, gen 1\)"
    why = r"was late by \d\.\d s, [34]\.\d s in GET /nap for 127\.0\.0\.1, so it was aborted: killed by SIGABRT"
    assert re.fullmatch(rf"ERROR: +{who} {why}, aged [3-9] s after 1 requests, \d\d MiB; its stack:", line), line


def test_a_retirement_tells_age_requests_and_memory(start: Starter) -> None:
    server = start(APP)
    (worker,) = server.workers()
    for _ in range(3):
        server.get("/")
    wait_weighed(worker)
    server.hup()
    server.wait_log(rf"worker {worker} \(slot 1, gen 1\) has retired, aged \d s after 3 requests, \d\d MiB$")


@needs_mounts
@pytest.mark.parametrize("name", ["memory.events", "memory/memory.oom_control"], ids=["v2", "v1"])
def test_a_kill_for_want_of_memory_is_told_from_one_by_hand(start: Starter, name: str) -> None:
    """The counter is a file of ours, mounted where the kernel's is."""
    counter = start.cwd / "cgroup" / name
    counter.parent.mkdir(parents=True)
    counter.write_text("low 0\noom 3\noom_kill 3\n")
    ours = mounted("mount --bind cgroup /sys/fs/cgroup")
    server = start.command(*ours, *MINICORN, APP, *ANY_PORT)
    server.wait_ready()
    by_hand = "which we did not send, idle for"
    for count, (kills, told) in enumerate([(3, by_hand), (4, r"want of memory \(OOM\), idle for"), (4, by_hand)]):
        counter.write_text(f"low 0\noom {kills}\noom_kill {kills}\n")
        (worker,) = server.workers()
        os.kill(worker, SIGKILL)
        server.wait_log(rf"worker {worker} \(slot 1, gen 1\) .*{told}")
        server.wait_log("is ready after", count=count + 2)


@needs_mounts
def test_our_own_kill_is_not_taken_for_one_by_the_kernel(start: Starter) -> None:
    """Even if the kernel has killed somebody meanwhile."""
    counter = start.cwd / "cgroup/memory/memory.oom_control"
    counter.parent.mkdir(parents=True)
    counter.write_text("oom_kill 0\n")
    (counter.parent.parent / "memory.events").symlink_to(counter)
    server = start.command(*mounted("mount --bind cgroup /sys/fs/cgroup"), *MINICORN, APP, *ANY_PORT, "--timeout", "1")
    server.wait_ready()
    _, worker = server.begin("/hold")
    counter.write_text("oom_kill 1\n")
    os.kill(worker, SIGSTOP)
    line = server.wait_log(rf"^.*worker {worker} .*$", count=2)[0]
    assert "it did not die of SIGABRT): killed by SIGKILL" in line
    assert "OOM" not in line
