"""`minicornctl`: real servers, looked at and told what to do from outside."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest
from harness import Server, Starter, environment, wait_until
from load import Load

from minicorn.figures import survey
from minicorn.figures.directory import Directory
from minicorn.pool.standing import Standing
from minicorn.system.process import is_stopped

CTL = (sys.executable, "-m", "minicorn.ctl")


def ctl(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CTL, "--pid", str(server.pid), *arguments], env=environment(), capture_output=True, text=True, timeout=60
    )


def status(server: Server) -> dict:
    return json.loads(ctl(server, "status", "--json").stdout)[0]


def test_status_tells_of_the_server_and_each_worker(start: Starter) -> None:
    server = start("plain:app", "--workers", "2", "--name", "shop")
    _, pid = server.begin("/hold")
    done = ctl(server, "status")
    assert done.returncode == 0, done.stderr
    assert f"shop (plain:app), pid {server.pid}, minicorn" in done.stdout
    assert "serving, generation 1, 2 of 2 workers ready, 1 busy" in done.stdout
    assert f"listening on http://127.0.0.1:{server.port}" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if f" {pid} " in line)
    assert "busy" in line and "in GET /hold for 127.0.0.1" in line and "MiB" in line


def test_status_as_json_has_typed_figures(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    server.get("/")
    server.get("/fail")
    wait_until(lambda: status(server)["totals"]["requests"] == 2, "both are counted")
    told = status(server)
    assert told["totals"]["by_status"]["2xx"] == told["totals"]["by_status"]["5xx"] == 1
    assert (told["pid"], told["ready"], told["workers_wanted"]) == (server.pid, True, 2)
    assert {each["pid"] for each in told["workers"]} == server.workers()
    assert all(each["rss"] > each["pss"] > 0 for each in told["workers"])
    assert told["accept_queues"][0]["room"] == 2048
    assert "GET /fail" in told["errors"][-1]["text"]


def test_status_tells_what_is_shared_and_what_is_not(start: Starter) -> None:
    start.write("large.py", "from plain import app\nTABLE = bytearray(b'x' * (32 << 20))\n")
    server = start("large:app", "--workers", "2", "--preload")
    wait_until(lambda: len(server.workers()) == 3, "workers and template are the arbiter's")
    told = status(server)
    for worker in told["workers"]:
        assert worker["private"] < 16 << 20 < 32 << 20 < worker["shared"] < worker["rss"]
    assert told["memory"]["processes"] == 4
    assert 32 << 20 < told["memory"]["pss"] < sum(worker["rss"] for worker in told["workers"])
    assert sum(worker["private"] for worker in told["workers"]) < told["memory"]["private"] < told["memory"]["pss"]
    text = ctl(server, "status").stdout
    assert re.search(r"memory: [\d.]+ MiB in 4 processes, [\d.]+ MiB of it not shared", text)
    assert "SHARED" in text and "PRIVATE" in text


def test_reload_waits_for_the_new_code(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    start.write("plain.py", (server.cwd / "plain.py").read_text().replace("VERSION = 1", "VERSION = 2"))
    with Load(start("handoff_app:app").port, 1):  # another server does not matter
        done = ctl(server, "reload", "--wait")
    assert (done.returncode, done.stdout) == (0, "generation 2 serves\n"), done.stderr
    assert server.get("/version").text == "2"


def test_reload_of_broken_code_fails_at_once_with_the_error(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    failed, took = start.cwd / "failed", []
    for _ in range(2):  # the outcome of the one before is no answer
        start.write("plain.py", "import time\nopen('failed', 'w').write(str(time.monotonic()))\n1 / 0\n")
        done = ctl(server, "reload", "--wait")
        ended = time.monotonic()
        assert done.returncode == 1
        assert "ZeroDivisionError: division by zero" in done.stderr
        took.append(ended - float(failed.read_text()))
        failed.unlink()
    assert min(took) < 1  # as is promised; it takes a tenth of that where the machine has time
    assert "last roll: to generation 3, failed" in ctl(server, "status").stdout
    assert server.get("/").status == 200


@pytest.mark.parametrize("text", ["timeout = 'soon'", "def on_reload(server): exit(3)"])
def test_reload_of_a_broken_configuration_fails_with_the_error(start: Starter, text: str) -> None:
    start.write("minicorn.conf.py", "timeout = 20\n")
    server = start("plain:app")
    start.write("minicorn.conf.py", text)
    done = ctl(server, "reload", "--wait")
    assert done.returncode == 1
    assert ("timeout" if "timeout" in text else "on_reload has failed") in done.stderr


def test_reload_while_a_roll_runs_waits_for_the_next(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    first = subprocess.Popen([*CTL, "--pid", str(server.pid), "reload", "--wait"], env=environment())
    second = ctl(server, "reload", "--wait")
    assert (first.wait(), second.returncode) == (0, 0)
    server.wait_log("workers replaced")
    assert server.log.text.count("workers replaced") in (1, 2)


def test_stop_waits_for_the_end(start: Starter) -> None:
    server = start("plain:app")
    assert ctl(server, "stop", "--wait").returncode == 0
    assert server.wait() == 0


def test_stop_that_takes_too_long_says_so(start: Starter) -> None:
    server = start("plain:app")
    server.hold()
    done = ctl(server, "stop", "--wait", "--timeout", "0.2")
    assert (done.returncode, "not within 0.2 s" in done.stderr) == (1, True)
    server.release()


def test_scale_goes_up_and_down(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    assert ctl(server, "scale", "5").returncode == 0
    assert len(server.workers()) == 5
    assert ctl(server, "scale", "1").returncode == 0
    assert len(server.workers()) == 1
    none = ctl(server, "scale", "0")
    assert (none.returncode, "'0' is no number from 1 to 1000" in none.stderr) == (2, True)


def test_a_stopped_arbiter_is_told_of_at_once_and_not_signalled(start: Starter) -> None:
    server = start("plain:app")
    server.signal(SIGSTOP)
    wait_until(lambda: is_stopped(server.pid), "it is stopped")
    for words in ("scale 2", "stop"):
        done = ctl(server, *words.split())
        assert (done.returncode, f"kill -CONT {server.pid}" in done.stderr) == (1, True)
    server.signal(SIGCONT)
    assert ctl(server, "scale", "2").returncode == 0


def test_reopen_logs_follows_a_rotation(start: Starter) -> None:
    server = start("plain:app", "--access-logfile", "access.log")
    (server.cwd / "access.log").rename(server.cwd / "access.log.1")
    assert ctl(server, "reopen-logs").returncode == 0
    wait_until(lambda: (server.cwd / "access.log").exists(), "it is opened again")


def test_upgrade_waits_for_the_new_program(start: Starter) -> None:
    server = start("plain:app")
    done = ctl(server, "upgrade", "--wait")
    assert done.returncode == 0, done.stderr
    assert "serves, generation 2" in done.stdout
    start.write("plain.py", "1 / 0\n")
    done = ctl(server, "upgrade", "--wait")
    assert done.returncode == 1
    assert "the new program does not load" in done.stderr and "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("path", ["/hold", "/grind"])  # the latter keeps the GIL, in C
def test_stacks_of_a_running_worker_are_taken_without_stopping_it(start: Starter, path: str) -> None:
    server = start("plain:app", "--workers", "2", "--timeout", "60")
    held, pid = server.begin(path)
    for _ in range(2):
        done = ctl(server, "stacks")
        assert f"in {path[1:]}" in done.stdout
        assert done.stdout.count("(most recent call first)") >= 2
        (head,) = (line for line in done.stdout.splitlines() if f"worker {pid} " in line)
        assert f"in GET {path}" in head
    assert pid in server.workers()
    if path == "/hold":
        server.release()
        assert held.getresponse().status == 200
    else:
        os.kill(pid, SIGKILL)  # nobody else ends it


def test_a_worker_that_does_not_answer_is_told(start: Starter) -> None:
    server = start("plain:app", "--timeout", "60")
    (pid,) = server.workers()
    os.kill(pid, SIGSTOP)
    done = ctl(server, "stacks", "1")
    assert (done.returncode, "wrote no stack in time" in done.stdout) == (0, True)
    assert ctl(server, "stacks", "7").returncode == 1
    os.kill(pid, SIGCONT)


def test_top_without_a_terminal_prints_one_frame(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    done = ctl(server, "top")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith("SLOT")]
    assert all(any(str(pid) in line for line in lines) for pid in server.workers())


def test_top_on_a_terminal_goes_on_until_q_and_leaves_it_as_it_was(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    _, pid = server.begin("/hold")
    top = start.command(*CTL, "--pid", str(server.pid), "top", prelude="terminal")
    top.log.wait("sort: s slot", 2, 15)  # a second frame
    top.type(b"t")  # who has worked longest comes first
    top.log.wait(rf"SLOT[^\n]*\n[^\n]* {pid} +1 busy .*in GET /hold", 1, 15)
    top.type(b"q")
    assert top.wait() == 0
    entered, left = "\033[?1049h\033[?25l", "\033[?25h\033[?1049l"
    assert top.log.text.startswith(entered) and top.log.finish().endswith(left)
    server.release()


def test_mistakes_are_one_line(start: Starter) -> None:
    server = start("plain:app")
    for arguments in (["--pid", str(os.getpid())], ["--pid", "nowhere.pid"], ["--worker-tmp-dir", str(server.cwd)]):
        done = subprocess.run([*CTL, *arguments, "status"], env=environment(), capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("minicornctl: ") and done.stderr.count("\n") == 1
    other = start("plain:app", "--worker-tmp-dir", str(server.cwd))
    another = start("plain:app", "--worker-tmp-dir", str(server.cwd))
    command = [*CTL, "--worker-tmp-dir", str(server.cwd), "reload"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert str(other.pid) in done.stderr and str(another.pid) in done.stderr


def test_a_made_up_directory_gets_nobody_signalled(tmp_path: Path) -> None:
    """Anybody may make one in /dev/shm, and who has the workers' user may change theirs."""
    made_up = Directory(str(tmp_path))
    with subprocess.Popen(["sleep", "60"]) as victim:
        try:
            made_up.ledger().beat(time.monotonic())
            made_up.ledger().write(Standing(pid=victim.pid, size=1))
            for command in ("reload", "stop", "reopen-logs", "upgrade", "stacks"):
                flags = ("--worker-tmp-dir", str(tmp_path), command)
                done = subprocess.run([*CTL, *flags], env=environment(), capture_output=True, text=True, timeout=60)
                assert (done.returncode, done.stdout) == (1, "")
                assert f"is not the directory of {victim.pid}, as it says" in done.stderr
            assert victim.poll() is None
        finally:
            victim.kill()
            made_up.remove()


def test_a_link_in_place_of_a_workers_file_is_not_followed(start: Starter, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("kept")
    server = start("plain:app")
    found = survey.find_by_pid(server.pid)
    assert found is not None
    (found / "1.trace").unlink()
    (found / "1.trace").symlink_to(secret)
    assert "it wrote no stack" in ctl(server, "stacks").stdout
    assert secret.read_text() == "kept"


@pytest.mark.parametrize("words", ["--pid server.pid status --json", "status --json -p server.pid"])
def test_a_pid_file_names_the_server_before_the_command_or_behind_it(start: Starter, words: str) -> None:
    server, _ = (start("plain:app", *flags) for flags in (("--pid", "server.pid"), ()))
    command = [*CTL, *words.split()]
    done = subprocess.run(command, cwd=server.cwd, env=environment(), capture_output=True, text=True)
    assert [each["pid"] for each in json.loads(done.stdout)] == [server.pid]


# Workers that are somebody else

# The interpreter may lie where that user cannot go: all that is needed is imported first
AS_USER = """
import locale, os, sys
from minicorn import ctl
ctl.build_parser()
os.setgroups([]), os.setgid(int(sys.argv[1])), os.setuid(int(sys.argv[1]))
sys.exit(ctl.main(sys.argv[2:]))
"""
LEAST = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]
"""
NOBODY, STRANGER = 65534, 54321


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_root_and_the_workers_user_may_look_only_root_may_tell_others_see_nothing(start: Starter) -> None:
    # Not below pytest's own folder: each session that begins closes it to others
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        Path(folder, "least.py").write_text(LEAST)
        flags = ("--chdir", folder, "--monitor", "127.0.0.1:0", "--umask", "077")
        server = start("least:app", "--workers", "2", "--user", "nobody", "--group", "nogroup", *flags)
        look_and_tell(server)


def look_and_tell(server: Server) -> None:
    def ctl_as(user: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", AS_USER, str(user), "--pid", str(server.pid), *arguments]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)

    for user in (0, NOBODY):
        (told,) = json.loads(ctl_as(user, "status", "--json").stdout)
        assert (told["pid"], told["ready"]) == (server.pid, True)
        assert all(each["pss"] > 0 for each in told["workers"])
        assert ctl_as(user, "stacks").stdout.count("(most recent call first)") >= 2
        assert "SLOT" in ctl_as(user, "top").stdout
    refused = ctl_as(NOBODY, "reload", "--wait")
    wanted = f"minicornctl: cannot signal {server.pid}: Operation not permitted\n"
    assert (refused.returncode, refused.stderr) == (1, wanted)
    assert ctl_as(0, "reload", "--wait").stdout == "generation 2 serves\n"
    assert "no minicorn of yours has the pid" in ctl_as(STRANGER, "status").stderr
    monitor = int(server.wait_log(r"Monitor on http://127\.0\.0\.1:(\d+)")[1])
    wait_until(lambda: server.get("/ready", at=monitor).text == "ready\n", "the monitor sees that it serves")
    idle = 'minicorn_workers{state="idle"} 2'
    wait_until(lambda: idle in server.get("/metrics", at=monitor).text, "the monitor sees the new workers")
