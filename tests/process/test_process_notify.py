"""A service manager's side by hand: a datagram socket that is told, descriptors that are passed."""

import array
import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGHUP, SIGUSR2

import pytest
from harness import MINICORN, PATIENCE, Server, Starter, wait_until

# What systemd does before it executes us: the variables name the process itself
ACTIVATE = """
import os, sys
names, *fds = sys.argv[1].split(",")
command = sys.argv[2:]
for number, fd in enumerate(fds):
    os.dup2(int(fd), 3 + number)
    os.close(int(fd))
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names}
os.execv(command[0], command)
"""


class Told:
    """What has come to a NOTIFY_SOCKET."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(name)
        self._socket.setblocking(False)
        self.lines: list[str] = []
        self.descriptors: list[int] = []

    def read(self) -> list[str]:
        while True:
            try:
                message, ancillary, *_ = self._socket.recvmsg(65536, socket.CMSG_SPACE(64))
            except BlockingIOError:
                return self.lines
            self.lines += message.decode().split("\n")
            for *_, data in ancillary:
                self.descriptors += array.array("i", data)

    def wait(self, line: str, count: int = 1) -> None:
        wait_until(lambda: self.read().count(line) >= count, f"told {line!r} x{count}: {self.lines}")

    def wait_part(self, part: str) -> None:
        wait_until(lambda: any(part in line for line in self.read()), f"told of {part!r}: {self.lines}")

    def close(self) -> None:
        self._socket.close()
        for fd in self.descriptors:
            os.close(fd)


@pytest.fixture
def told(start: Starter, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    monkeypatch.chdir(start.cwd)
    told = Told("notify")  # a relative name: a socket's path is short
    yield told
    told.close()


def env(start: Starter, **extra: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(start.cwd / "notify")} | extra


GATED = """
import pathlib, time
while not pathlib.Path("go").exists():
    time.sleep(0.01)
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]
"""


def test_ready_is_told_when_a_worker_serves_and_not_before(start: Starter, told: Told) -> None:
    start.write("gated.py", GATED)
    server = start("gated:app", ready=0, env=env(start))
    told.wait_part("STATUS=booting")
    server.wait_log("Listening on")
    assert "READY=1" not in told.read()
    assert "EXTEND_TIMEOUT_USEC=30000000" in told.lines
    (start.cwd / "go").touch()
    told.wait("READY=1")
    assert server.get("/").text == "served"
    assert server.stop() == 0
    told.wait("STOPPING=1")


def test_an_abstract_socket_is_told_as_well(start: Starter) -> None:
    name = f"minicorn-{os.getpid()}"
    told = Told(f"\0{name}")
    start(env={"NOTIFY_SOCKET": f"@{name}"})
    told.wait("READY=1")
    told.close()


def test_a_roll_and_an_upgrade_are_reloads_and_the_pid_stays(start: Starter, told: Told) -> None:
    server = start(env=env(start))
    server.hup()
    told.wait("READY=1", count=2)
    assert told.lines.count("RELOADING=1") == 1
    assert any(line.startswith("MONOTONIC_USEC=") for line in told.lines)
    server.signal(SIGUSR2)
    server.wait_log("goes on as")
    told.wait("READY=1", count=3)
    assert not any(line.startswith("MAINPID=") for line in told.lines)
    assert "NOTIFY_SOCKET" not in json.loads(server.get("/environment").text)


def test_a_roll_that_fails_is_in_the_status(start: Starter, told: Told) -> None:
    start.write("rolling.py", GATED)
    (start.cwd / "go").touch()
    server = start("rolling:app", env=env(start))
    start.write("rolling.py", "raise RuntimeError('no such table')")
    server.signal(SIGHUP)
    told.wait_part("STATUS=the roll to generation 2 failed: RuntimeError: no such table; 1 of 1 workers serve")
    told.wait("READY=1", count=2)
    assert server.get("/").text == "served"


def test_the_watchdog_is_fed(start: Starter, told: Told) -> None:
    server = start(env=env(start, WATCHDOG_USEC="200000"))
    told.wait("WATCHDOG=1", count=5)
    assert server.get("/").status == 200


def test_a_watchdog_that_watches_another_process_is_not_fed(start: Starter, told: Told) -> None:
    start(env=env(start, WATCHDOG_USEC="200000", WATCHDOG_PID="1"))
    told.wait("READY=1")
    assert "WATCHDOG=1" not in told.read()


def test_children_of_the_application_see_nothing_of_it(start: Starter, told: Told) -> None:
    server = start(env=env(start, WATCHDOG_USEC="9000000", FDSTORE="1"))
    steering = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", "LISTEN_FDS", "LISTEN_PID")
    assert not set(steering) & set(json.loads(server.get("/environment").text))


def test_a_manager_that_is_not_there_costs_nothing(start: Starter) -> None:
    server = start(env={"NOTIFY_SOCKET": "/nonexistent/notify", "WATCHDOG_USEC": "x"})
    assert server.get("/").status == 200


# Descriptors


def activate(start: Starter, names: str, fds: list[int], *flags: str, **options: object) -> Server:
    passed = ",".join([names, *map(str, fds)])
    command = (sys.executable, "-c", ACTIVATE, passed, *MINICORN, "plain:app", *flags)
    return start.command(*command, pass_fds=tuple(fds), **options)


@pytest.fixture
def listening() -> Iterator[Callable[[], tuple[int, int]]]:
    """Makes listening sockets: a descriptor out of the way of the numbers that are passed, and its port."""
    fds: list[int] = []

    def make() -> tuple[int, int]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            fds.append(fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD_CLOEXEC, 50))
            return fds[-1], int(listener.getsockname()[1])

    yield make
    for fd in fds:
        os.close(fd)


Listening = Callable[[], tuple[int, int]]


def test_all_sockets_that_are_passed_are_served_in_place_of_host_and_port(start: Starter, listening: Listening) -> None:
    (fd, port), (fd2, port2) = listening(), listening()
    server = activate(start, "a:b", [fd, fd2])
    server.wait_ready()
    assert [server.get("/", at=each).status for each in (port, port2)] == [200, 200]
    assert len(server.log.text.split("Listening on")) == 3
    child = json.loads(server.get("/child", at=port).text)
    assert child["descriptors"] == [0, 1, 2]


def test_a_name_selects_among_those_that_are_passed(start: Starter, listening: Listening) -> None:
    (fd, _), (fd2, private) = listening(), listening()
    server = activate(start, "public:private", [fd, fd2], "--bind", "fd://private")
    server.wait_ready()
    assert server.port == private
    assert server.get("/").status == 200


def test_a_name_selects_the_monitors_which_serves_no_client(start: Starter, listening: Listening) -> None:
    (fd, public), (fd2, private) = listening(), listening()
    server = activate(start, "public:private", [fd, fd2], "--monitor", "fd://private")
    server.wait_ready()
    server.wait_log(f"Monitor on http://127.0.0.1:{private}")
    wait_until(lambda: server.get("/ready", at=private).text == "ready\n", "the monitor knows that it serves")
    assert server.port == public
    assert len(server.log.text.split("Listening on")) == 2


def test_a_name_that_was_not_passed_is_one_line(start: Starter, listening: Listening) -> None:
    fd, _ = listening()
    server = activate(start, "web", [fd], "--bind", "fd://wbe")
    assert server.wait() == 1
    line = "minicorn: error: cannot listen on fd://wbe: the service manager has passed no such descriptor (web)\n"
    assert server.log.finish() == line


def test_what_was_passed_is_not_bound_again(
    start: Starter, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd, port = listening()
    server = activate(start, "web", [fd], "--bind", f"127.0.0.1:{port}", "--bind", f"unix:{start.cwd}/s")
    server.wait_ready()
    monkeypatch.chdir(start.cwd)
    assert server.get("/", at=port).status == server.get("/", at=Path("s")).status == 200


def test_a_connected_socket_is_refused_in_one_line(start: Starter) -> None:
    ours, theirs = socket.socketpair()
    fd = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 50)
    server = activate(start, "connection", [fd])
    os.close(fd)
    assert server.wait() == 1
    assert "descriptor 3 (connection): no listening stream socket; its socket unit needs" in server.log.finish()
    ours.close()
    theirs.close()


def test_descriptors_for_another_process_are_left_alone(start: Starter, listening: Listening) -> None:
    fd, port = listening()
    server = start(pass_fds=(fd,), env={"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert server.port != port


def test_listeners_are_kept_when_asked_and_serve_again(start: Starter, told: Told) -> None:
    path = start.cwd / "kept.sock"
    flags = ("plain:app", "--bind", "127.0.0.1:0", "--bind", f"unix:{path}")
    server = start(*flags, bind=False, env=env(start, FDSTORE="4"))
    told.wait("FDSTORE=1", count=2)
    names = [line.removeprefix("FDNAME=") for line in told.lines if line.startswith("FDNAME=")]
    before = server.port
    assert server.stop() == 0
    waiting = socket.create_connection(("127.0.0.1", before), timeout=PATIENCE)
    waiting.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")  # between the two
    fds = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 50) for fd in told.descriptors]
    again = activate(start, ":".join(names), fds, *flags[1:], env=env(start, FDSTORE="4"))
    for fd in fds:
        os.close(fd)
    assert again.port == before
    assert waiting.recv(65536).startswith(b"HTTP/1.1 200 OK")
    waiting.close()
    assert again.get("/", at=Path("kept.sock")).status == 200


def test_what_was_kept_and_is_not_wanted_any_more_is_given_back(
    start: Starter, listening: Listening, told: Told
) -> None:
    fd, port = listening()
    name = "minicorn http%3A//127.0.0.1%3A1"
    server = activate(start, name, [fd], "--bind", "127.0.0.1:0", env=env(start))
    told.wait("FDSTOREREMOVE=1")
    assert f"FDNAME={name}" in told.lines
    server.wait_ready()
    assert server.port != port


# The journal, and shells


def test_the_journal_gets_a_priority_on_every_line(start: Starter) -> None:
    ours, theirs = socket.socketpair()
    status = os.fstat(theirs.fileno())
    start.write("broken.py", "raise RuntimeError('first\\nsecond')")
    journal = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    server = start("broken:app", ready=0, stderr=theirs.fileno(), env=journal)
    assert server.wait() == 3
    theirs.close()
    with ours, ours.makefile() as lines:
        said = lines.read().splitlines()
    assert "<6>INFO:     Started arbiter" in said[0]
    assert all(line.startswith(("<3>", "<6>")) for line in said)
    assert "<3>second" in said


def test_a_stream_that_is_not_the_journals_has_no_priorities(start: Starter) -> None:
    server = start(env={"JOURNAL_STREAM": "1:2"})
    assert not server.log.text.startswith("<")


@pytest.mark.parametrize(("command", "warned"), [("{}; true", True), ("exec {}", False)])
def test_a_shell_above_us_that_swallows_signals_is_told_of(start: Starter, command: str, warned: bool) -> None:
    server = start.command("/bin/sh", "-c", command.format(" ".join([*MINICORN, "plain:app", "--bind", "127.0.0.1:0"])))
    server.wait_log("is ready after")
    assert ("started by a shell" in server.log.text) is warned
    if warned:
        (arbiter,) = server.workers()  # the shell's child
        os.kill(arbiter, 15)
        assert server.wait() == 0
