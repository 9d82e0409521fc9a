"""What is imported of minicorn while its server runs: nothing.

A later version may lie in its place by then (`pip install` under a running server), which does not fit the one
that runs; and what comes before the fork is shared by all.
"""

import os
import socket
from pathlib import Path
from signal import SIGUSR1

import pytest
from harness import CHECKOUT, Server, Starter, wait_until

# As `sitecustomize`, before anything of ours: who imports what, forked processes too
RECORDER = """
import os, sys
class Recorder:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "minicorn":
            with open(os.environ["IMPORTED"], "a") as file:
                print(os.getpid(), name, file=file)
sys.meta_path.insert(0, Recorder)
"""
APPLICATION = """
import os
import socket
def app(environ, start_response):
    if environ["PATH_INFO"] == "/end":
        os.kill(os.getpid(), 9)
    if environ["PATH_INFO"] == "/raise":
        raise RuntimeError("on request")
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    print("printed")
    return [b"answered", body]
"""
HOOKS = "".join(
    f"def {name}(*given): pass\n"
    for name in ("on_starting", "when_ready", "post_fork", "pre_request", "worker_exit", "child_exit", "on_reload")
)
LOG_CONFIG = '{"root": {"handlers": ["h"]}, "handlers": {"h": {"class": "logging.StreamHandler"}}}'
# What each of the settings takes that bring code of their own, by the name of the case
CASES: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "access log": ("--access-logfile", "access.log"),
    "access log as json": ("--access-logfile", "-", "--access-logformat", "json"),
    "captured output": ("--capture-output",),
    "handlers": ("--log-config", "log.json"),
    "hooks": ("-c", "hooks.py"),
    "monitor": ("--monitor", "unix:monitor.sock"),
    "statsd": ("--statsd-host", "127.0.0.1:9"),
    "pid file": ("--pid", "pid"),
    "preload": ("--preload",),
    "preload, reforked": ("--preload", "--refork-after", "2"),
    "proxy protocol": ("--proxy-protocol",),
    "recycling": ("--max-requests", "2", "--max-worker-memory", "1G"),
    "syslog": ("--log-syslog", "--log-syslog-to", "udp://127.0.0.1:9"),
    "warm-up": ("--warmup", "/"),
}


def begin(start: Starter, *flags: str) -> Server:
    start.write("record/sitecustomize.py", RECORDER)
    start.write("hooks.py", HOOKS)
    start.write("log.json", LOG_CONFIG)
    start.write("project.py", APPLICATION)
    path = f"{start.cwd / 'record'}{os.pathsep}{CHECKOUT}"
    return start("project:app", *flags, env={"PYTHONPATH": path, "IMPORTED": str(start.cwd / "imported")}, ready=0)


def imported(server: Server) -> list[str]:
    """All so far, in order: pid and name."""
    path = server.cwd / "imported"
    return path.read_text().splitlines() if path.exists() else []


def late(server: Server, before: list[str]) -> set[str]:
    """What has been imported behind `before`, and by forked processes at any time."""
    everything = imported(server)
    assert f"{server.pid} minicorn.app" in before  # the recorder records
    forked = [line for line in before if not line.startswith(f"{server.pid} ")]
    return {line.split()[1] for line in forked + everything[len(before) :]}


@pytest.mark.parametrize("case", CASES)
def test_nothing_of_ours_is_imported_once_the_server_runs(start: Starter, case: str) -> None:
    server = begin(start, *CASES[case])
    server.wait_log("is ready after")
    before = imported(server)
    if case == "proxy protocol":
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    else:
        assert server.get("/").text == "answered"
        assert server.get("/raise").status == 500
        connection = server.connect()
        connection.request("POST", "/", body=b"x" * 100_000)
        assert connection.getresponse().read()[:9] == b"answeredx"
    if case == "monitor":
        for path in ("/metrics", "/status", "/"):
            assert server.get(path, at=Path(start.cwd / "monitor.sock")).status == 200
    if case != "proxy protocol":
        server.send("/end")
        server.wait_log("SIGKILL")
    server.signal(SIGUSR1)
    server.hup()
    server.stop()
    assert late(server, before) == set()


def test_nothing_of_ours_is_imported_while_files_are_edited(start: Starter) -> None:
    server = begin(start, "--reload")
    server.wait_log("is ready after")
    before = imported(server)
    assert server.get("/").text == "answered"
    assert server.get("/raise").status == 500
    start.write("project.py", "import nothing_of_this_name\n")
    wait_until(lambda: "nothing_of_this_name" in server.get("/").text, "the error is shown")
    start.write("project.py", APPLICATION.replace("answered", "mended"))
    wait_until(lambda: server.get("/").text == "mended", "it is mended")
    server.stop()
    assert late(server, before) == set()
