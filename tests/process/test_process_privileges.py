"""Bound as root, served as nobody: who the workers are, and log files that stay theirs through rotations."""

import contextlib
import os
import shutil
import socket
import sys
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGUSR1, SIGUSR2

import pytest
from harness import ANY_PORT, Reply, Server, Starter, descriptors, wait_until
from harness import read as read_reply

import minicorn

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")

NOBODY = 65534
WHO = """
import os
def app(environ, start_response):
    start_response("200 OK", [])
    return [repr((os.getuid(), os.getgid(), os.getgroups())).encode()]
"""

# From its first request on, there is nothing left to import
SEALED = """
import sys
class Seal:
    def find_spec(self, name, path=None, target=None):
        raise PermissionError(f"{name} is not for nobody")
def app(environ, start_response):
    if not isinstance(sys.meta_path[0], Seal):
        sys.meta_path.insert(0, Seal())
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/raise":
        raise ValueError("of the application")
    start_response("200 OK", [])
    return [b"%d of " % len(body), environ["REMOTE_ADDR"].encode()]
"""


@pytest.fixture
def start(start_in_the_open: Starter) -> Starter:
    start_in_the_open.cwd.chmod(0o755)
    return start_in_the_open


def low_port() -> int:
    """A port that only root may bind: 80, unless somebody has it."""
    for port in range(80, 1024):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port below 1024 is free")


def serve(start: Starter, mode: int = 0o755) -> Server:
    """One worker as nobody on a port below 1024, logs in files; `mode` is the directory's, which is root's."""
    start.write("who.py", WHO)
    logs = start.cwd / "logs"
    logs.mkdir()
    logs.chmod(mode)
    flags = ("--user", "nobody", "--group", "nogroup", "--access-logformat", "%(p)s")
    flags += ("--access-logfile", "logs/access", "--error-logfile", "logs/error")
    server = start("who:app", "--bind", f"127.0.0.1:{low_port()}", *flags, ready=0, bind=False)
    wait_until(lambda: read(logs / "error").count("is ready after") == 1, "it is ready")
    server.heartbeats()
    return server


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def ask(server: Server) -> str:
    return server.get("/", at=server.listening_port()).text


def have_open(path: Path, server: Server) -> bool:
    """Whether the arbiter and its worker write to what is called `path` now."""
    return path.exists() and all(str(path) in descriptors(pid) for pid in (server.pid, *server.workers()))


def test_root_binds_a_low_port_and_nobody_serves(start: Starter) -> None:
    server = serve(start)
    assert server.listening_port() < 1024
    assert ask(server) == f"({NOBODY}, {NOBODY}, [{NOBODY}])"
    assert server.heartbeats().stat().st_uid == NOBODY
    first = server.workers()
    server.signal(SIGHUP)
    wait_until(lambda: not first & server.workers() and server.workers(), "it is replaced")
    assert ask(server) == f"({NOBODY}, {NOBODY}, [{NOBODY}])"


@pytest.mark.parametrize("signal", [True, False], ids=["USR1", "by inode"])
def test_logs_that_are_rotated_after_the_drop_stay_nobodys(start: Starter, signal: bool) -> None:
    """In a directory that is root's: only the arbiter can make the new files."""
    server = serve(start)
    logs = [start.cwd / "logs" / name for name in ("access", "error")]
    ask(server)
    wait_until(lambda: read(logs[0]), "the request is in the log")
    for path in logs:
        path.rename(path.with_suffix(".1"))
    if signal:
        server.signal(SIGUSR1)
    # The worker looks when it has something to write
    wait_until(lambda: ask(server) and have_open(logs[0], server), "both have the new access log")
    assert [path.stat().st_uid for path in logs] == [NOBODY] * 2
    (worker,) = server.workers()
    os.kill(worker, SIGKILL)
    wait_until(lambda: "SIGKILL" in read(logs[1]) and "is ready after" in read(logs[1]), "its successor logs")
    assert ask(server)
    assert "cannot" not in read(logs[1]) + read(logs[1].with_suffix(".1"))


def test_a_link_that_nobody_leaves_in_place_of_a_log_does_not_lead_root_astray(start: Starter) -> None:
    server = serve(start, mode=0o777)
    secret = start.cwd / "secret"
    secret.write_text("root's")
    log = start.cwd / "logs" / "access"
    log.unlink()
    log.symlink_to(secret)
    server.signal(SIGUSR1)
    wait_until(lambda: "cannot write the log file" in read(start.cwd / "logs" / "error"), "it refuses")
    ask(server)
    assert (secret.stat().st_uid, secret.read_text()) == (0, "root's")


def test_an_upgrade_goes_on_without_names_that_have_gone_and_follows_no_link(start: Starter) -> None:
    """Both the socket's directory and the heartbeats' are the workers' user's to change."""
    start.write("who.py", WHO)
    start.cwd.chmod(0o777)
    path, secret = start.cwd / "s", start.cwd / "secret"
    secret.write_text("root's")
    server = start("who:app", "--user", "nobody", "--bind", f"unix:{path}")
    path.unlink()
    path.symlink_to(secret)
    server.signal(SIGUSR2)
    server.wait_log("generation 2 serves")
    assert secret.stat().st_uid == 0
    path.unlink()
    shutil.rmtree(server.heartbeats())
    server.signal(SIGUSR2)
    server.wait_log(f"ERROR: .*cannot give {server.heartbeats()}: No such file")
    server.wait_log("generation 3 serves")
    assert server.get().text == f"({NOBODY}, {NOBODY}, [{NOBODY}])"


@pytest.mark.parametrize("logged", [(), ("--access-logfile", "-", "--access-logformat", "json")], ids=["", "logged"])
def test_a_request_imports_nothing_where_the_user_changes(start: Starter, logged: tuple[str, ...]) -> None:
    """Who serves may not be able to read Python's library."""
    start.write("sealed.py", SEALED)
    # Without `site`, whose imports are those of what happens to be installed
    command = (sys.executable, "-S", "-m", "minicorn", "sealed:app", *ANY_PORT, "--user", "nobody", *logged)
    server = start.command(*command, env={"PYTHONPATH": str(Path(minicorn.__file__).parents[1])})
    server.wait_ready()

    def ask(path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        with contextlib.closing(server.connect()) as connection:
            connection.request("GET", path, body, headers or {})
            return read_reply(connection)

    assert ask("/").text == "0 of 127.0.0.1"
    said = {"X-Request-ID": "a", "X-Request-Start": "t=1700000000.123", "X-Forwarded-For": "192.0.2.7, 127.0.0.1"}
    assert ask("/caf%C3%A9?%20", headers=said).text == "0 of 192.0.2.7"
    assert ask("/", headers={"X-Forwarded-For": "2001:db8::7", "Host": "[::1]"}).text == "0 of 2001:db8::7"
    assert ask("/", b"x" * 900_000).text == "900000 of 127.0.0.1"
    assert ask("/raise").status == 500
    assert ask("/", headers={"Host": "a b"}).status == 400
    for number in range(9):
        assert ask(f"/{number}").status == 200
    assert "is not for nobody" not in server.log.text
