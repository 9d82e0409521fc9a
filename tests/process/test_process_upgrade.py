"""USR2, upgrade in place: the same pid, the same sockets and workers, a new program."""

import fcntl
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH

import psutil
import pytest
from harness import ANY_PORT, CHECKOUT, PATIENCE, Server, Starter, descriptors, read, wait_until
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
# The check waits until the file `check-on` is there
SLOW_CHECK = """
import os, pathlib, time
if "MINICORN_WORKER" not in os.environ:
    pathlib.Path("checked").write_text(str(os.getpid()))
    while not pathlib.Path("check-on").exists():
        time.sleep(0.01)
while "MINICORN_WORKER" in os.environ and pathlib.Path("gate").exists():
    time.sleep(0.01)
from plain import app
"""
FAILS_IN_WORKERS = """
import os
if "MINICORN_WORKER" in os.environ:
    raise RuntimeError("as the test wants")
from plain import app
"""
# Makes other settings of the file `later`, once the check has read those that were there
BREAKS_IN_THE_CHECK = """
import os, pathlib, shutil
if "MINICORN_CHECK" in os.environ:
    pathlib.Path("minicorn.conf.py").write_text("x = (")
    shutil.rmtree("{there}")
"""
# What the check may meet: the new application, and what the log must say of it
BROKEN = {
    "SyntaxError": ("x = 1\nif x\n", r"line 2\n(.*\n)+SyntaxError"),
    "ImportError": ("from json import nothing\n", r"ImportError: cannot import name 'nothing'"),
    "SystemExit": ("import sys\nsys.exit(0)\n", r"line 2, in <module>\n(.*\n)+SystemExit: 0"),
    "no application": ("app = 7\n", "which cannot be called"),
    "os._exit": ("import os\nos._exit(3)\n", "exit code 3"),
    "crash": ("import ctypes\nctypes.string_at(0)\n", "SIGSEGV"),
    "hang": ("import time\ntime.sleep(60)\n", "longer than 3 s"),
}
# Some of them are met by the second tier alone: an upgrade takes seconds
SELDOM = {name: [pytest.mark.slow] * (name in ("no application", "SystemExit", "crash")) for name in BROKEN}


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


def test_an_interpreter_behind_a_symlink_is_seen_by_an_upgrade(start: Starter) -> None:
    """As where each release has its virtual environment, and `current/bin/minicorn` is called."""
    current = start.cwd / "current"
    for version in ("1", "2"):
        place = start.cwd / "releases" / version
        start.write(
            f"releases/{version}/minicorn",
            f"#!{place}/python\nimport sys\nfrom minicorn.__main__ import main\nsys.exit(main())\n",
        )
        (place / "minicorn").chmod(0o755)
        (place / "python").symlink_to(sys.executable)
    start.write(
        "site_app.py",
        "import sys\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [sys.executable.encode()]\n",
    )
    current.symlink_to("releases/1")
    server = start.command(str(current / "minicorn"), "site_app:app", *ANY_PORT)
    server.wait_ready()
    assert server.get("/").text == f"{start.cwd}/releases/1/python"
    (start.cwd / "next").symlink_to("releases/2")
    (start.cwd / "next").replace(current)
    upgrade(server)
    assert server.get("/").text == f"{start.cwd}/releases/2/python"


def test_an_upgrade_does_without_the_directory_of_the_start(start: Starter) -> None:
    place = start.cwd / "gone"
    place.mkdir()
    server = start("plain:app", "--chdir", str(start.cwd), cwd=place)
    place.rmdir()
    upgrade(server)
    assert server.get("/").status == 200
    server.hup(roll=2)


# A new minicorn


def test_a_new_version_of_minicorn_is_taken_up(start: Starter) -> None:
    package, env = own_copy(start)
    server = start("plain:app", "--workers", "2", env=env)
    edit(package / "version.py", "VERSION =", 'VERSION = "99.1"  # was')
    edit(package / "serving/wsgi.py", '"SERVER_SOFTWARE": "minicorn"', '"SERVER_SOFTWARE": "minicorn the next"')
    edit(start.cwd / "plain.py", "return str(VERSION)", 'return environ["SERVER_SOFTWARE"]')
    upgrade(server)
    server.wait_log(r"minicorn 99\.1 goes on as arbiter")
    assert versions(server) == {"minicorn the next"}


BROKEN_PACKAGES = {
    "a syntax error": ("arbiter/arbiter.py", "class Arbiter:", "class Arbiter(:", "SyntaxError"),
    "an import error": ("app.py", "from minicorn.serving.loader", "from minicorn.nothing", "minicorn.nothing"),
    "a flag that has gone": ("config/settings.py", '"-w", "--workers"', '"--processes"', "--workers"),
    "another inheritance": ("arbiter/succession.py", "\nVERSION = ", "\nVERSION = 1", "version"),
}


@pytest.mark.parametrize("name", BROKEN_PACKAGES)
def test_a_minicorn_that_cannot_take_over_is_not_taken_up(start: Starter, name: str) -> None:
    module, old, new, reason = BROKEN_PACKAGES[name]
    package, env = own_copy(start)
    server = start("plain:app", "--workers", "1", env=env)
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
    """The one record of a failed upgrade of a server with one worker, with all its lines."""
    server.wait_log("upgrade is off")
    server.signal(SIGTTOU)
    server.wait_log("1 workers? wanted")
    (record,) = re.findall(r"^ERROR: .*\n(?:(?!INFO|WARNING|ERROR).*\n)*", server.log.text, re.MULTILINE)
    assert record.startswith("ERROR:    upgrade is off, all serve on as before:")
    assert server.log.text.partition("checking the new program\n")[2].startswith(record), server.log.text
    return str(record)


@pytest.mark.parametrize("name", [pytest.param(name, marks=mark) for name, mark in SELDOM.items()])
def test_a_failed_check_changes_nothing_and_a_later_upgrade_works(start: Starter, name: str) -> None:
    source, reason = BROKEN[name]
    start.write("site_app.py", GOOD.format(version="old"))
    server = start("site_app:app", *(("--boot-timeout", "3") if name == "hang" else ()))
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


def test_a_failed_check_tells_its_reason_where_the_errors_are_logged(start: Starter) -> None:
    error = start.cwd / "error.log"
    start.write("site_app.py", GOOD.format(version="old"))
    server = start("site_app:app", "--error-logfile", "error.log", ready=0)
    wait_until(lambda: error.exists() and "is ready after" in error.read_text(), "it serves")
    start.write("site_app.py", "1 / 0\n")
    server.signal(SIGUSR2)
    wait_until(lambda: "upgrade is off" in error.read_text(), "the check has failed")
    assert "ZeroDivisionError" in error.read_text().partition("upgrade is off")[2]
    assert server.stop() == 0
    assert server.log.finish() == ""


@pytest.mark.parametrize("name", ["no directory", "another's pid file", "another's address"])
def test_what_a_new_setting_asks_for_and_cannot_have_is_found_by_the_check(start: Starter, name: str) -> None:
    """The new program would end at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken, (start.cwd / "theirs").open("w") as theirs:
        fcntl.lockf(theirs, fcntl.LOCK_EX)
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        setting, reason = {
            "no directory": ("pidfile = 'missing/pid'", "--pid missing/pid: No such file"),
            "another's pid file": ("pidfile = 'theirs'", "--pid theirs: a server with pid  has it"),
            "another's address": (f"monitor = {address!r}", "the address is in use"),
        }[name]
        server = start()
        start.write("minicorn.conf.py", setting)
        server.signal(SIGUSR2)
        assert reason in off(server)
        assert server.get("/").status == 200


def test_new_settings_that_can_be_had_come_with_the_upgrade(start: Starter) -> None:
    server = start()
    for count, place in enumerate(("first.pid", "second.pid"), 1):
        start.write("minicorn.conf.py", f"pidfile = {place!r}\nmonitor = '127.0.0.1:0'")
        upgrade(server, count)
        assert (start.cwd / place).read_text() == f"{server.pid}\n"
    port = int(server.wait_log(r"Monitor on http://127\.0\.0\.1:(\d+)")[1])
    wait_until(lambda: server.get("/ready", at=port).status == 200, "the monitor answers")
    assert server.stop() == 0
    assert not (start.cwd / "second.pid").exists()


def test_what_cannot_be_had_after_the_check_is_done_without(start: Starter, place: Path) -> None:
    """The settings are those that the check has read, whatever the file says by then."""
    server = start()
    (place / "there").mkdir()
    start.write("minicorn.conf.py", f"pidfile = '{place}/there/pid'\nmonitor = 'unix:{place}/there/m'")
    breaks = BREAKS_IN_THE_CHECK.format(there=place / "there")
    start.write("plain.py", breaks + (start.cwd / "plain.py").read_text())
    upgrade(server)
    server.wait_log(f"ERROR: .*--pid {place}/there/pid: No such file")
    server.wait_log("ERROR: .*--monitor: .*No such file")
    assert server.get("/").status == 200
    server.signal(SIGHUP)
    server.wait_log("reload is off, all serve on as before: minicorn.conf.py: line 1: SyntaxError")


def test_what_goes_between_the_check_and_the_exec_ends_nobody_that_serves(start: Starter, pair) -> None:
    """New workers cannot boot, so the old ones serve on; the log goes to standard error."""
    site = start.cwd / "site"
    site.mkdir()
    files = [shutil.copy(made, site) for made in (pair.certificate, pair.key)]
    hook = f"import shutil\ndef pre_exec(server):\n    shutil.rmtree({str(site)!r})\n"
    places = f"certfile, keyfile = {[str(file) for file in files]}\n"
    start.write("gunicorn.conf.py", hook + places)
    server = start("minicorn.demo:app", "--chdir", str(site), "--error-logfile", f"{site}/errors.log", ready=0)
    port = server.listening_port()
    context = ssl.create_default_context(cafile=pair.certificate)
    with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)) as client:
        context.check_hostname = False
        client.request("GET", "/")
        assert client.getresponse().read()
    server.signal(SIGUSR2)
    server.wait_log("--chdir .*: No such file or directory; all serve on without")
    server.wait_log("cannot write the log file .*/errors.log: .*; all serve on without")
    server.wait_log("ERROR: .*certfile .*; all serve on without")
    server.wait_log("goes on as arbiter")
    server.wait_log("roll to generation 2 is off: .* generation 1 serves on")
    with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)) as client:
        client.request("GET", "/")
        assert client.getresponse().status == 200
    assert server.stop() == 0


def test_a_log_file_that_cannot_be_opened_again_is_found_by_the_check(start: Starter) -> None:
    """The new program would end at once: it has nowhere to log."""
    (start.cwd / "logs").mkdir()
    server = start("plain:app", "--access-logfile", "logs/access.log")
    (start.cwd / "logs").rename(start.cwd / "elsewhere")
    server.signal(SIGUSR2)
    assert "logs/access.log" in off(server)
    assert server.get("/").status == 200


def test_the_check_looks_at_the_release_that_the_symlink_leads_to_now(start: Starter) -> None:
    start.write("releases/1/site_app.py", "from minicorn.demo import app\n")
    start.write("releases/2/site_app.py", "1 / 0\n")
    current = start.cwd / "current"
    current.symlink_to("releases/1")
    server = start("site_app:app", cwd=current)
    (start.cwd / "next").symlink_to("releases/2")
    (start.cwd / "next").replace(current)
    server.signal(SIGUSR2)
    assert "ZeroDivisionError" in off(server)
    assert server.get("/").status == 200


def test_an_interpreter_that_has_gone_ends_the_upgrade_and_not_the_server(start: Starter) -> None:
    python = start.cwd / "python"
    python.symlink_to(sys.executable)
    server = start.command(str(python), "-m", "minicorn", "plain:app", "--bind", "127.0.0.1:0")
    server.wait_ready()
    python.unlink()
    server.signal(SIGUSR2)
    assert "python" in off(server)
    assert server.get("/").status == 200
    python.symlink_to(sys.executable)
    upgrade(server)
    assert server.get("/").status == 200


def test_term_during_the_check_leaves_nothing_behind(start: Starter) -> None:
    start.write("site_app.py", GOOD.format(version="old"))
    server = start("site_app:app")
    before = server.workers()
    start.write("site_app.py", "import pathlib, time\npathlib.Path('checked').touch()\ntime.sleep(60)\n")
    server.signal(SIGUSR2)
    wait_until((start.cwd / "checked").exists, "the check is under way")
    assert len(server.workers() - before) == 1
    assert server.stop() == 0
    wait_until(lambda: not server.family(), "the check has gone as well")


def test_workers_that_cannot_boot_after_the_upgrade_leave_the_old_ones_at_work(start: Starter) -> None:
    start.write("site_app.py", GOOD.format(version="old"))
    server = start("site_app:app", "--workers", "2")
    before = server.workers()
    start.write("site_app.py", FAILS_IN_WORKERS)
    server.signal(SIGUSR2)
    server.wait_log("roll to generation 2 is off")
    assert "goes on as arbiter" in server.log.text
    assert server.workers() == before
    assert versions(server) == {"old"}
    start.write("site_app.py", GOOD.format(version="fixed"))
    server.hup()
    assert versions(server) == {"fixed"}


def test_an_upgrade_without_workers_is_no_first_start(start: Starter) -> None:
    """What cannot boot then does not end the server."""
    start.write("site_app.py", GOOD.format(version="old"))
    server = start("site_app:app")
    server.signal(SIGWINCH)
    wait_until(lambda: not server.workers(), "the worker has gone")
    start.write("site_app.py", FAILS_IN_WORKERS)
    server.signal(SIGUSR2)
    server.wait_log("goes on as arbiter")
    server.signal(SIGHUP)
    server.wait_log("could not load", count=3)
    start.write("site_app.py", GOOD.format(version="fixed"))
    server.hup()
    assert versions(server) == {"fixed"}


# Signals in the same moment


@pytest.mark.parametrize("signals", [(SIGUSR2, SIGHUP), (SIGHUP, SIGUSR2), (SIGUSR2, SIGUSR1, SIGHUP, SIGHUP, SIGUSR2)])
def test_hup_and_usr2_together_make_a_roll_and_an_upgrade(start: Starter, signals: tuple[signal.Signals, ...]) -> None:
    server = start("plain:app", "--workers", "2")
    server.signal(*signals)
    server.wait_log("generation 3 serves")
    server.wait_log("goes on as arbiter")  # two HUPs that were seen apart come first
    assert server.get("/").status == 200


def test_ten_usr2_make_two_upgrades_at_most(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    server.signal(*[SIGUSR2] * 10)
    upgraded(server)
    assert server.get("/").status == 200
    assert server.stop() == 0
    assert server.log.finish().count("goes on as arbiter") <= 2


@pytest.mark.parametrize("signum", [SIGTERM, pytest.param(SIGINT, marks=pytest.mark.slow)])
def test_a_stop_soon_after_usr2_is_obeyed(start: Starter, signum: signal.Signals) -> None:
    """Whatever the arbiter is at: each time it comes a little later."""
    for attempt in range(10):
        server = start("minicorn.demo:app")
        server.signal(SIGUSR2)
        time.sleep(attempt * 0.04)
        assert server.stop(signum) == 0
        wait_until(lambda server=server: not server.family(), "the whole tree has gone")


@pytest.mark.slow
def test_ttin_and_ttou_soon_after_usr2_are_obeyed(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    for count in range(1, 13):
        server.signal(SIGUSR2)
        time.sleep(count * 0.04)
        server.signal(SIGTTIN if count % 2 else SIGTTOU)
        server.wait_log(f"{2 + count % 2} workers wanted", count=(count + 1) // 2)
        upgraded(server, count)
    wait_until(lambda: len(server.workers()) == 2, "as many serve as were wanted last")


@pytest.mark.slow
def test_usr1_soon_after_usr2_is_obeyed(start: Starter) -> None:
    error = start.cwd / "error.log"
    server = start("plain:app", "--workers", "2", "--error-logfile", "error.log", ready=0)
    wait_until(lambda: error.exists() and error.read_text().count("is ready after") == 2, "it serves")
    for attempt in range(8):
        server.signal(SIGUSR2)
        time.sleep(attempt * 0.06)
        error.rename(start.cwd / f"error.log.{attempt}")
        server.signal(SIGUSR1)
        wait_until(error.exists, "the log is opened again")
        everyone = [server.pid, *server.workers()]
        wait_until(lambda everyone=everyone: not holders(everyone, "/error.log."), "nobody writes to the old one")
        wait_until(lambda: "generation" in "".join(map(Path.read_text, start.cwd.glob("error.log*"))), "it has rolled")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system cannot tell when a stranger ends")
def test_a_signal_between_the_check_and_the_exec_is_obeyed_by_the_new_arbiter(start: Starter) -> None:
    """The moment that follows the end of the check, met as nearly as can be."""
    start.write("site_app.py", SLOW_CHECK)
    server = start("site_app:app", "--workers", "2")
    for count in range(1, 6):
        server.signal(SIGUSR2)
        check = check_under_way(start)
        (start.cwd / "check-on").touch()
        wait_end(check)
        spin(count * 0.0001)
        server.signal(SIGTTIN if count % 2 else SIGTTOU)
        server.wait_log("workers? wanted", count=count)
        upgraded(server, count)
        (start.cwd / "check-on").unlink()


def test_hup_during_the_check_rolls_before_the_upgrade(start: Starter) -> None:
    start.write("site_app.py", SLOW_CHECK)
    server = start("site_app:app")
    server.signal(SIGUSR2)
    check = check_under_way(start)
    (start.cwd / "gate").touch()
    server.signal(SIGHUP)
    server.wait_log("rolling to generation 2")
    (start.cwd / "check-on").touch()
    wait_end(check)
    server.signal(SIGTTOU)
    server.wait_log("1 workers? wanted")
    assert "replacing the arbiter" not in server.log.text
    (start.cwd / "gate").unlink()
    server.wait_log("generation 3 serves")
    log = server.log.text
    assert log.index("generation 2 serves") < log.index("replacing the arbiter") < log.index("goes on as"), log


def test_settings_that_a_hup_takes_up_during_the_check_are_the_next_images_too(start: Starter) -> None:
    """The check has read older ones: it is made again."""
    start.write("minicorn.conf.py", "raw_env = ['STAGE=old']")
    shows = "from plain import ROUTES\nROUTES['/stage'] = lambda environ: os.environ['STAGE']\n"
    start.write("site_app.py", SLOW_CHECK + shows)
    server = start("site_app:app")
    server.signal(SIGUSR2)
    check_under_way(start)
    start.write("minicorn.conf.py", "raw_env = ['STAGE=new']")
    server.signal(SIGHUP)
    server.wait_log("generation 2 serves")
    (start.cwd / "check-on").touch()
    server.wait_log("generation 3 serves")
    assert server.get("/stage").body == b"new"
    assert server.log.text.count("checking the new program") == 2


def test_usr2_during_a_roll_waits_for_its_end(start: Starter) -> None:
    start.write("site_app.py", GATED.format(version="any"))
    server = start("site_app:app")
    (start.cwd / "gate").touch()
    server.signal(SIGHUP)
    server.wait_log("rolling to generation 2")
    server.signal(SIGUSR2)
    server.signal(SIGTTOU)
    server.wait_log("1 workers? wanted")
    # The next turn of the arbiter's loop is over as well
    server.signal(SIGTTOU)
    server.wait_log("1 workers? wanted", count=2)
    assert "checking" not in server.log.text
    (start.cwd / "gate").unlink()
    server.wait_log("generation 3 serves")
    log = server.log.text
    assert log.index("generation 2 serves") < log.index("checking the new program") < log.index("goes on as"), log


# Workers that die or hang meanwhile


@pytest.mark.parametrize("moment", ["checking the new program", "replacing the arbiter", "goes on as arbiter"])
def test_a_worker_killed_during_the_upgrade_is_reaped_and_replaced(start: Starter, moment: str) -> None:
    server = start("plain:app", "--workers", "3")
    victim = min(server.workers())
    server.signal(SIGUSR2)
    server.wait_log(moment)
    os.kill(victim, SIGKILL)
    server.wait_log(rf"worker {victim} .*SIGKILL, which we did not send")
    upgraded(server)
    wait_until(lambda: len(server.workers()) == 3, "three workers serve")
    children = psutil.Process(server.pid).children()
    assert psutil.STATUS_ZOMBIE not in {child.status() for child in children}
    assert server.get("/").status == 200


def test_a_worker_that_hung_before_the_upgrade_is_killed_after_it(start: Starter) -> None:
    start.write("site_app.py", SLOW_CHECK)
    server = start("site_app:app", "--workers", "2", "--timeout", "3")
    server.signal(SIGUSR2)
    check_under_way(start)
    _, hung = server.begin("/nap?report=7")
    (start.cwd / "check-on").touch()
    upgraded(server)
    line = server.wait_log(rf"^.*worker {hung} .* was late by .*$")[0]
    assert "in GET /nap?report=7" in line
    assert "SIGABRT" in line
    server.wait_log(r'File ".*plain\.py", line \d+ in nap$')
    assert server.log.text.index("goes on as arbiter") < server.log.text.index("was late")


def test_workers_leave_when_the_arbiter_is_killed_after_an_upgrade(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    upgrade(server)
    server.kill_arbiter()
    wait_until(lambda: not server.family(), "the orphans have gone")


# What it owns


def test_an_upgrade_keeps_the_pid_file_and_its_lock(start: Starter) -> None:
    flags = ("plain:app", "--pid", "server.pid")
    server, path = start(*flags), start.cwd / "server.pid"
    inode = path.stat().st_ino
    for count in (1, 2):
        upgrade(server, count)
        assert (path.read_text(), path.stat().st_ino) == (f"{server.pid}\n", inode)
        second = start(*flags, ready=0)
        assert second.wait() == 1
        assert f"a server with pid {server.pid} has it" in second.log.finish()
    assert server.stop() == 0
    assert not path.exists()


def test_an_upgrade_keeps_the_unix_socket(start: Starter, place: Path) -> None:
    path = place / "server.sock"
    server = start("plain:app", "--bind", f"unix:{path}", bind=False)
    inode = path.stat().st_ino
    upgrade(server)
    assert list(place.iterdir()) == [path]
    assert path.stat().st_ino == inode
    assert server.get("/", at=path).status == 200
    assert server.stop() == 0
    assert list(place.iterdir()) == []


def test_an_upgrade_keeps_an_inherited_socket(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        fd, port = ours.fileno(), ours.getsockname()[1]
        server = start("plain:app", "--bind", f"fd://{fd}", bind=False, pass_fds=(fd,))
        upgrade(server)
        assert server.listening_port() == port
        assert server.get("/", at=port).status == 200
        assert server.stop() == 0
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            ours.settimeout(10)
            ours.accept()[0].close()


def test_an_upgrade_keeps_the_heartbeats_until_the_end(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    directory = server.heartbeats()
    upgrade(server)
    for pid in (server.pid, *server.workers()):
        pages = [link for link in descriptors(pid) if "/minicorn-" in link]
        assert pages
        assert {Path(page).parent for page in pages} == {directory}
    assert server.stop() == 0
    assert not directory.exists()


def test_upgrades_leave_no_descriptors_open(start: Starter) -> None:
    server = start("plain:app", "--workers", "2", "--pid", "server.pid", "--access-logfile", "access.log")

    def count_open() -> tuple[int, int]:
        """Pages are as many as there have ever been workers at once: of them, the most that lead to one file."""
        links = descriptors(server.pid)
        pages = [link for link in links if "/minicorn-" in link]
        return len(links) - len(pages), max(map(pages.count, pages))

    before = count_open()
    for count in range(1, 6):
        upgrade(server, count)
        server.wait_log("has retired", count=2 * count)
    wait_until(lambda: count_open() == before, "nothing is left open")


def test_the_application_sees_nothing_of_the_upgrade(start: Starter) -> None:
    server = start("plain:app", "--pid", "server.pid")
    upgrade(server)
    server.wait_log("has retired")
    seen = json.loads(server.get("/environment").text)
    assert {name for name in seen if name.startswith("MINICORN")} == {"MINICORN_WORKER"}
    child = json.loads(server.get("/child").text)
    assert child == {"descriptors": [0, 1, 2], "blocked": "0" * 16, "ignored": "0" * 16}


def test_a_script_that_calls_serve_is_upgraded_and_goes_on_at_its_end(start: Starter) -> None:
    """Neither the check nor the program that is replaced comes to what follows the call."""
    start.write(
        "script.py",
        "import pathlib\nfrom minicorn import serve\n"
        "serve('plain:app', port=0, workers=2)\npathlib.Path('ended').touch()\n",
    )
    server = start.command(sys.executable, "script.py")
    server.wait_ready(2)
    upgrade(server)
    assert server.get("/").status == 200
    assert not (start.cwd / "ended").exists()
    assert server.stop() == 0
    assert (start.cwd / "ended").exists()


def holders(pids: list[int], part: str) -> list[str]:
    """The open descriptors of living processes that lead to a path with that part."""
    found = []
    for pid in pids:
        try:
            found += [link for link in descriptors(pid) if part in link]
        except OSError:
            continue  # it, or the descriptor, has gone meanwhile
    return found


def check_under_way(start: Starter) -> int:
    """The pid of the check that waits in SLOW_CHECK."""
    told = start.cwd / "checked"
    wait_until(lambda: told.exists() and told.read_text(), "the check is under way")
    pid = int(told.read_text())
    told.unlink()
    return pid


def wait_end(pid: int) -> None:
    """Until that process, no child of ours, has ended: to the microsecond."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 10)[0], "it has not ended"
    finally:
        os.close(fd)


def spin(seconds: float) -> None:
    """A pause more exact than sleep's."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
