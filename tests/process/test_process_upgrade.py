"""USR2, upgrade in place: the same pid, the same sockets and workers, a new program."""

import os
import re
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH

import psutil
import pytest
from harness import CHECKOUT, Server, Starter, descriptors, read, wait_until
from test_process_signals import ready_counts

GOOD = """
from plain import ROUTES, app
ROUTES["/version"] = lambda environ: "{version}"
"""
# Workers, and not the check, wait at their import while the file `gate` is there
GATED = """
import os, pathlib, time
while "MINICORN_WORKER" in os.environ and pathlib.Path("gate").exists():
    time.sleep(0.01)
from plain import ROUTES, app
ROUTES["/version"] = lambda environ: "{version}"
"""
# What the check may meet: the new application, and what the log must say of it
BROKEN = {
    "SyntaxError": ("x = 1\nif x\n", r"line 2\n(.*\n)+SyntaxError"),
    "ImportError": ("from json import nothing\n", r"ImportError: cannot import name 'nothing'"),
    "SystemExit": ("import sys\nsys.exit(0)\n", r"line 2, in <module>\n(.*\n)+SystemExit: 0"),
    "no application": ("app = 7\n", "which cannot be called"),
    "os._exit": ("import os\nos._exit(3)\n", "exit code 3"),
    "crash": ("import ctypes\nctypes.string_at(0)\n", "SIGSEGV"),
    "hang": ("import time\ntime.sleep(60)\n", "longer than 1 s"),
}


def upgraded(server: Server, count: int = 1) -> None:
    """Wait for the end of the `count`th upgrade, when no other roll has been."""
    server.wait_log("goes on as arbiter", count=count)
    server.wait_log(r"generation \d+ serves: .* replaced", count=count)


def upgrade(server: Server, count: int = 1) -> None:
    """USR2, and wait for the end of the `count`th upgrade."""
    server.signal(SIGUSR2)
    upgraded(server, count)


def own_copy(start: Starter) -> tuple[Path, dict[str, str]]:
    """A copy of minicorn, and the environment of a server that runs it."""
    place = start.cwd / "lib"
    shutil.copytree(CHECKOUT / "minicorn", place / "minicorn", ignore=shutil.ignore_patterns("__pycache__"))
    return place / "minicorn", {"PYTHONPATH": str(place)}


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that is there, in one step."""
    text = path.read_text()
    assert old in text
    path.with_suffix(".new").write_text(text.replace(old, new))
    path.with_suffix(".new").replace(path)


def versions(server: Server) -> set[str]:
    return {server.get("/version").text for _ in range(8)}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a path short enough for a Unix socket."""
    path = Path(os.path.realpath(f"/tmp/minicorn-upgrade-{os.getpid()}"))
    path.mkdir()
    yield path
    shutil.rmtree(path)


# What changes, and what does not


def test_an_upgrade_keeps_pid_and_port_and_serves_the_new_code(start: Starter) -> None:
    start.write("site_app.py", GOOD.format(version="old"))
    server = start("site_app:app", "--workers", "3")
    before, port = server.workers(), server.listening_port()
    assert versions(server) == {"old"}
    start.write("site_app.py", GOOD.format(version="new"))
    upgrade(server)
    assert server.process.poll() is None
    assert server.listening_port() == port
    assert versions(server) == {"new"}
    wait_until(lambda: len(server.workers()) == 3, "three workers are left")
    assert not before & server.workers()
    server.wait_log(rf"goes on as arbiter \[{server.pid}\] with 3 workers")


def test_workers_serve_on_under_the_new_arbiter_until_it_replaces_them(start: Starter) -> None:
    start.write("site_app.py", GATED.format(version="old"))
    server = start("site_app:app", "--workers", "3")
    before = server.workers()
    (start.cwd / "gate").touch()
    start.write("site_app.py", GATED.format(version="new"))
    server.signal(SIGUSR2)
    server.wait_log("rolling to generation 2")
    assert "goes on as arbiter" in server.log.text
    wait_until(lambda: len(server.workers()) == 4, "the first new worker is being imported")
    assert before < server.workers()
    assert versions(server) == {"old"}
    (start.cwd / "gate").unlink()
    upgraded(server)
    assert versions(server) == {"new"}


def test_an_upgrade_never_lowers_the_number_of_ready_workers(start: Starter) -> None:
    server = start("plain:app", "--workers", "4")
    upgrade(server)
    server.wait_log("has retired", count=4)
    counts = ready_counts(server.log.text)
    assert min(counts[counts.index(4) :]) == 4, server.log.text


def test_idle_connections_survive_an_upgrade(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    old = {str(worker) for worker in server.workers()}
    connections = [server.send("/") for _ in range(8)]
    assert {read(connection).text for connection in connections} <= old
    sockets = [connection.sock for connection in connections]
    upgrade(server)
    server.wait_log("has retired", count=2)
    for connection, first in zip(connections, sockets, strict=True):
        connection.request("GET", "/")
        assert read(connection).text not in old
        assert connection.sock is first


def test_a_request_in_hand_survives_an_upgrade(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    connection, busy = server.begin("/hold")
    server.signal(SIGUSR2)
    server.wait_log("is ready after", count=4)
    assert busy in server.workers()
    server.release()
    assert len(read(connection).body) == 500_000
    upgraded(server)


def test_a_half_sent_request_survives_an_upgrade(start: Starter) -> None:
    server = start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: half")
        upgrade(server)
        server.wait_log("has retired")
        client.sendall(b".example\r\nConnection: close\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_no_request_fails_under_upgrades(start: Starter) -> None:
    """On a connection that stays, and on new ones."""
    server = start("plain:app", "--workers", "2", "--max-keepalive-requests", "0")
    over = threading.Event()
    wrong: list[object] = []
    lasting = server.connect()
    lasting.connect()
    first = lasting.sock

    def ask() -> None:
        try:
            while not over.is_set():
                lasting.request("GET", "/version")
                replies = [read(lasting), server.get("/version")]
                if [reply.text for reply in replies] != ["1", "1"] or lasting.sock is not first:
                    wrong.append(replies)
        except OSError as error:
            wrong.append(error)

    client = threading.Thread(target=ask)
    client.start()
    try:
        for count in (1, 2, 3):
            upgrade(server, count)
    finally:
        over.set()
        client.join()
    assert wrong == []


def test_the_number_of_workers_that_signals_have_made_is_kept(start: Starter) -> None:
    server = start()
    server.signal(SIGTTIN)
    server.wait_log("is ready after", count=2)
    upgrade(server)
    server.wait_log(r"goes on as arbiter \[\d+\] with 2 workers")
    server.wait_log("has retired", count=2)
    assert len(server.workers()) == 2


@pytest.mark.parametrize("how", ["cwd", "chdir"])
def test_a_release_behind_a_symlink_is_seen_by_an_upgrade(start: Starter, how: str) -> None:
    current = start.cwd / "current"
    for version in ("1", "2"):
        start.write(f"releases/{version}/release.py", f"VERSION = '{version}'\n")
        start.write(
            f"releases/{version}/site_app.py",
            "import os, release\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [])\n"
            "    return [f'{release.VERSION} {os.path.realpath(os.curdir)[-1]}'.encode()]\n",
        )
    current.symlink_to("releases/1")
    flags = ("--workers", "2", *(("--chdir", "current") if how == "chdir" else ()))
    server = start("site_app:app", *flags, cwd=start.cwd if how == "chdir" else current)
    assert server.get("/").text == "1 1"
    (start.cwd / "next").symlink_to("releases/2")
    (start.cwd / "next").replace(current)
    upgrade(server)
    assert {server.get("/").text for _ in range(8)} == {"2 2"}


# A new minicorn


def test_a_new_version_of_minicorn_is_taken_up(start: Starter) -> None:
    package, env = own_copy(start)
    server = start("plain:app", "--workers", "2", env=env)
    edit(package / "version.py", "VERSION =", 'VERSION = "99.1"  # was')
    edit(package / "wsgi.py", '"SERVER_SOFTWARE": "minicorn"', '"SERVER_SOFTWARE": "minicorn the next"')
    start.write("tell.py", "from plain import ROUTES, app\n")
    edit(start.cwd / "plain.py", "return str(VERSION)", 'return environ["SERVER_SOFTWARE"]')
    upgrade(server)
    server.wait_log(r"minicorn 99\.1 goes on as arbiter")
    assert versions(server) == {"minicorn the next"}


BROKEN_PACKAGES = {
    "a syntax error": ("arbiter.py", "class Arbiter:", "class Arbiter(:", "SyntaxError"),
    "an import error": ("app.py", "from minicorn.worker import", "from minicorn.nothing import", "minicorn.nothing"),
    "a flag that has gone": ("settings.py", '"-w", "--workers"', '"--processes"', "--workers"),
    "another estate": ("succession.py", "VERSION = 1", "VERSION = 2", "version"),
}


@pytest.mark.parametrize("name", BROKEN_PACKAGES)
def test_a_minicorn_that_cannot_take_over_is_not_taken_up(start: Starter, name: str) -> None:
    module, old, new, reason = BROKEN_PACKAGES[name]
    package, env = own_copy(start)
    server = start("plain:app", "--workers", "2", env=env)
    before = server.workers()
    edit(package / module, old, new)
    server.signal(SIGUSR2)
    told = off(server)
    assert reason in told
    assert server.workers() == before
    assert server.get("/").status == 200
    edit(package / module, new, old)
    upgrade(server)
    assert server.get("/").status == 200


# A check that fails


def off(server: Server) -> str:
    """The one record of a failed upgrade, with all its lines."""
    server.wait_log("upgrade is off")
    barrier(server)
    (record,) = re.findall(r"^ERROR: .*\n(?:(?!INFO|WARNING|ERROR).*\n)*", server.log.text, re.MULTILINE)
    assert record.startswith("ERROR:    upgrade is off, all serve on as before:")
    assert record in server.log.text.partition("checking the new program\n")[2]
    return str(record)


def barrier(server: Server) -> None:
    """Until the arbiter has done and logged all that it knew of; with one worker or more."""
    count = server.log.text.count("workers wanted") + server.log.text.count("worker wanted")
    server.signal(SIGTTIN)
    server.wait_log("workers? wanted", count=count + 1)
    server.signal(SIGTTOU)
    server.wait_log("workers? wanted", count=count + 2)


@pytest.mark.parametrize("name", BROKEN)
def test_a_failed_check_changes_nothing_and_a_later_upgrade_works(start: Starter, name: str) -> None:
    source, reason = BROKEN[name]
    start.write("site_app.py", GOOD.format(version="old"))
    server = start("site_app:app", "--workers", "2", "--boot-timeout", "1")
    before = server.workers()
    start.write("site_app.py", source)
    server.signal(SIGUSR2)
    told = off(server)
    assert re.search(reason, told), told
    assert told.count("Traceback") <= 1
    assert server.workers() == before
    assert versions(server) == {"old"}
    assert "goes on as" not in server.log.text
    start.write("site_app.py", GOOD.format(version="fixed"))
    upgrade(server)
    assert versions(server) == {"fixed"}
