"""What the application, its children, and the machine see of the server."""

import gzip
import json
import os
import socket
import sys
import time
from pathlib import Path
from signal import SIGHUP, SIGUSR1

import psutil
import pytest
from harness import ANY_PORT, MINICORN, Server, Starter, read, wait_until

PARENT = """
import atexit, sys
from minicorn import serve
sys.stdout.write("buffered by the parent\\n")
atexit.register(sys.stdout.write, "atexit of the parent\\n")
try:
    serve("{app}", port=0, workers=2)
finally:
    sys.stdout.write("finally of the parent\\n")
"""


def boots(start: Starter) -> dict[int, str]:
    """MINICORN_WORKER as the application saw it at its import, by pid."""
    return {int(path.name.split("-")[1]): path.read_text() for path in start.cwd.glob("boot-*")}


# The application


def test_minicorn_worker_is_unique_among_workers(start: Starter) -> None:
    server = start("plain:app", "--workers", "4")
    assert sorted(boots(start).values()) == ["1", "2", "3", "4"]
    server.hup()
    server.wait_log("has retired", count=4)
    numbers = [boots(start)[pid] for pid in server.workers()]
    assert len(set(numbers)) == 4


def test_what_is_meant_for_the_arbiter_is_not_in_the_applications_environment(start: Starter) -> None:
    private = {
        "LISTEN_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "web",
        "NOTIFY_SOCKET": str(start.cwd / "notify"),
        "WATCHDOG_PID": "1",
        "WATCHDOG_USEC": "1000000",
    }
    server = start("plain:app", env=private | {"MINE": "kept"})
    seen = json.loads(server.get("/environment").text)
    assert not private.keys() & seen.keys()
    assert seen["MINE"] == "kept"


@pytest.mark.parametrize(
    ("flags", "software"),
    [((), "minicorn"), (("--preload",), "minicorn"), (("--env", "SERVER_SOFTWARE=gunicorn/23"), "gunicorn/23")],
    ids=["plain", "preload", "env"],
)
def test_the_application_sees_at_its_import_that_a_server_imports_it(
    start: Starter, flags: tuple[str, ...], software: str
) -> None:
    start.write("site_app.py", "import os\nSEEN = os.environ['SERVER_SOFTWARE']\nfrom plain import ROUTES, app\n"
                "ROUTES['/seen'] = lambda environ: SEEN\n")  # fmt: skip
    assert start("site_app:app", *flags).get("/seen").text == software


@pytest.mark.parametrize("flags", [(), ("--preload",)], ids=["plain", "preload"])
def test_script_name_in_the_environment_is_where_the_application_is_mounted(
    start: Starter, flags: tuple[str, ...]
) -> None:
    start.write("mounted.py", MOUNTED)
    server = start(
        "mounted:app", "--env", "SCRIPT_NAME=/caf\u00e9/", "--forwarded-headers", "x-forwarded-prefix", *flags
    )
    trusted = {"X-Forwarded-Prefix": "/else"}
    for path, headers, place in [
        ("/caf%C3%A9/a%20b", {}, ["/caf\u00e9", "/a b"]),
        ("/caf%C3%A9", {}, ["/caf\u00e9", ""]),
        ("/caf%C3%A9s", {}, ["/caf\u00e9", "/caf\u00e9s"]),
        ("/health", {}, ["/caf\u00e9", "/health"]),
        ("/caf%C3%A9/a", trusted, ["/else", "/caf\u00e9/a"]),
    ]:
        connection = server.connect()
        connection.request("GET", path, headers=headers)
        assert json.loads(read(connection).text) == place


def test_the_applications_children_inherit_nothing_of_ours(start: Starter) -> None:
    """Descriptors, ignored signals, blocked signals."""
    flags = ("--pid", "server.pid", "--access-logfile", "access.log", "--error-logfile", "error.log", "--workers", "2")
    server = start("plain:app", *flags, ready=0)
    error = start.cwd / "error.log"
    wait_until(lambda: error.exists() and error.read_text().count("is ready after") == 2, "they are ready")
    port = int(error.read_text().partition("http://127.0.0.1:")[2].split()[0])
    child = json.loads(server.get("/child", at=port).text)
    assert child == {"descriptors": [0, 1, 2], "blocked": "0" * 16, "ignored": "0" * 16}


def test_the_descriptor_limit_is_raised_to_the_hard_one(start: Starter) -> None:
    server = start("plain:app", prelude="limit=256,4096")
    assert json.loads(server.get("/limits").text) == [4096, 4096]


def test_atexit_functions_of_the_application_run_in_each_worker_that_retires(start: Starter) -> None:
    server = start("plain:app", "--workers", "2")
    first = server.workers()
    server.hup()
    wait_until(lambda: all((start.cwd / f"exit-{pid}").exists() for pid in first), "those of the old have run")
    second = server.workers() - first
    assert server.stop() == 0
    assert {int(path.name.split("-")[1]) for path in start.cwd.glob("exit-*")} == first | second


@pytest.mark.parametrize(
    "source",
    [
        'import logging.config\nlogging.config.dictConfig({"version": 1, "root": {"level": "ERROR"}})\n',
        "import logging\nlogging.basicConfig(level=logging.CRITICAL, force=True)\n",
        "import logging\nlogging.shutdown()\n",
    ],
    ids=["dictConfig", "basicConfig", "shutdown"],
)
def test_the_applications_logging_configuration_does_not_silence_ours(start: Starter, source: str) -> None:
    """dictConfig disables all loggers that exist, unless it is told not to."""
    start.write("site_app.py", f"{source}from plain import app\n")
    server = start("site_app:app")
    assert server.get("/fail").status == 500
    server.wait_log("^ERROR: .*GET /fail")
    server.wait_log("ValueError: as the path says")


def test_a_logging_configuration_during_a_request_silences_nothing_of_ours(start: Starter) -> None:
    start.write(
        "late.py",
        "import logging.config\nimport plain\n\n"
        "def app(environ, start_response):\n"
        "    logging.config.dictConfig({'version': 1})\n    print('configured')\n"
        "    return plain.app(environ, start_response)\n",
    )
    server = start("late:app", "--capture-output")
    assert server.get("/fail").status == 500
    server.wait_log("^INFO: +configured")
    server.wait_log("^ERROR: .*GET /fail")


# The application's end


MOUNTED = """
import json

def app(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps([environ[key].encode("latin-1").decode() for key in ("SCRIPT_NAME", "PATH_INFO")]).encode()]
"""
KEEPING = """
import gzip
files = []

def app(environ, start_response):
    if not files:
        files.extend([open("notes", "a"), gzip.open("notes.gz", "at")])
    for file in files:
        print("noted", file=file)
    start_response("200 OK", [])
    return []
"""
TELLS = """
def app(environ, start_response):
    print(f"of {environ['PATH_INFO']}: \\u20ac", "and on", sep="\\n", file=environ["wsgi.errors"])
    start_response("200 OK", [])
    return []
"""
# As a logger of the application's own may be, where print() leads
BROKEN = (
    "import sys\nclass Broken:\n    def write(self, text): return len(text)\n    def flush(self): raise RuntimeError\n"
    "sys.stdout = Broken()\n"
)
ENDS = {
    "a thread that goes on": "import threading\nthreading.Thread(target=time.sleep, args=(60,)).start()\n",
    "TERM ignored": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n",
    "an atexit function that raises": "import atexit\natexit.register(lambda: 1 / 0)\n",
    "an atexit function that exits": "import atexit, sys\natexit.register(sys.exit, 3)\n",
    "an atexit function that hangs": "import atexit\natexit.register(time.sleep, 60)\n",
}


@pytest.mark.parametrize("flags", [(), ("--preload", "--capture-output")], ids=["plain", "preload"])
def test_a_stream_of_the_applications_that_cannot_be_flushed_lets_no_child_out_of_its_process(
    start: Starter, flags: tuple[str, ...]
) -> None:
    """It would go on as the arbiter that it was forked from, whose end removes socket, pid file and heartbeats."""
    start.write("site_app.py", f"{BROKEN}from plain import app\n")
    server = start("site_app:app", "--pid", "server.pid", "--bind", "unix:site.sock", *flags, bind=False)
    server.hup()
    assert server.get(at=start.cwd / "site.sock").status == 200
    assert (start.cwd / "server.pid").exists()
    assert server.stop() == 0
    assert "Traceback" not in server.log.text


@pytest.mark.parametrize("flags", [(), ("--preload",)], ids=["plain", "preload"])
def test_what_the_application_has_buffered_in_its_files_is_written_when_its_worker_retires(
    start: Starter, flags: tuple[str, ...]
) -> None:
    start.write("keeping.py", KEEPING)
    server = start("keeping:app", *flags)
    for _ in range(3):
        assert server.get().status == 200
    server.hup()
    server.wait_log("has retired", count=1)
    assert (start.cwd / "notes").read_text() == "noted\n" * 3
    with gzip.open(start.cwd / "notes.gz") as packed:
        assert packed.read(18) == b"noted\n" * 3


@pytest.mark.parametrize("what", ENDS)
def test_whatever_the_application_does_it_ends_with_the_server(start: Starter, what: str) -> None:
    start.write("site_app.py", f"import time\nfrom plain import app\n{ENDS[what]}")
    server = start("site_app:app", "--workers", "2", "--graceful-timeout", "2")
    assert server.get("/").status == 200
    assert server.stop() == 0


# The machine


def test_process_titles_tell_who_is_who(start: Starter) -> None:
    pytest.importorskip("setproctitle")
    start.write("minicorn.conf.py", "def child_exit(server, worker): pass")
    server = start("plain:app", "--workers", "2", "--name", "shop")

    def titles() -> list[str]:
        return sorted(" ".join(psutil.Process(pid).cmdline()).strip() for pid in server.family())

    expected = [
        "minicorn: arbiter [shop]",
        "minicorn: hooks process",
        "minicorn: worker 1 gen 1 [shop] ready",
        "minicorn: worker 2 gen 1 [shop] ready",
    ]
    wait_until(lambda: titles() == expected, "the titles are set")


def test_the_arbiter_has_one_thread_whatever_is_on(start: Starter) -> None:
    """A fork copies that thread alone, with whatever others had locked."""
    start.write("minicorn.conf.py", "def child_exit(server, worker): pass")
    server = start("plain:app", "--reload", "--monitor", "127.0.0.1:0", "--capture-output", "--access-logfile", "-")
    assert server.get("/").status == 200
    assert psutil.Process(server.pid).num_threads() == 1


def test_a_retiring_worker_says_so_in_its_title(start: Starter) -> None:
    pytest.importorskip("setproctitle")
    server = start()
    response = server.send("/big").getresponse()  # more than the socket takes: it retires slowly
    (worker,) = server.workers()
    server.signal(SIGHUP)
    wait_until(lambda: "retiring" in " ".join(psutil.Process(worker).cmdline()), "the title says so")
    assert len(response.read()) == 8 * 2**20


def test_workers_auto_is_the_cpus_that_we_may_use(start: Starter) -> None:
    allowed = os.sched_getaffinity(0)
    start("plain:app", "--workers", "auto", ready=1, prelude=f"affinity={min(allowed)}").wait_log("with 1 worker ")
    server = start("plain:app", "--workers", "auto", ready=0)
    count = int(server.wait_log(r"with (\d+) workers? ")[1])
    assert 1 <= count <= len(allowed)
    server.wait_ready(count)
    assert len(server.workers()) == count


# Descriptors are scarce


@pytest.mark.parametrize("workers", ["1", "2"])
def test_200_connections_with_64_descriptors_are_all_answered(start: Starter, workers: str) -> None:
    server = start("plain:app", "--workers", workers, prelude="limit=64,64")
    clients = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(200)]
    try:
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answers = [client.recv(65536)[:15] for client in clients]
        assert answers == [b"HTTP/1.1 200 OK"] * 200
    finally:
        for client in clients:
            client.close()


def test_a_worker_at_its_descriptor_limit_does_not_spin(start: Starter) -> None:
    server = start("plain:app", prelude="limit=64,64")
    (worker,) = server.workers()
    clients = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(100)]
    try:
        wait_until(lambda: len(os.listdir(f"/proc/{worker}/fd")) > 32, "it has taken what it can")
        before = sum(psutil.Process(worker).cpu_times()[:2])
        time.sleep(1.5)
        assert sum(psutil.Process(worker).cpu_times()[:2]) - before < 0.3
    finally:
        for client in clients:
            client.close()
    assert server.get("/").status == 200


# Standard streams


def full_pipe() -> tuple[int, int]:
    """A pipe that nobody reads, filled to the brim."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while os.write(writing, b"." * 4096):
            pass
    except BlockingIOError:
        pass
    os.set_blocking(writing, True)
    return reading, writing


def test_a_stalled_stderr_stops_neither_hup_nor_term(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = full_pipe()
    path = start.cwd / "s"
    monkeypatch.chdir(start.cwd)  # a Unix socket's path must be short
    try:
        server = start("plain:app", "--bind", "unix:s", "--workers", "2", ready=0, bind=False, stderr=writing)
        wait_until(path.exists, "it listens")
        first = int(server.get("/", at=Path("s")).text)
        wait_until(lambda: len(server.workers()) == 2, "two workers")
        server.heartbeats()
        server.signal(SIGHUP)
        wait_until(lambda: first not in server.workers(), "the workers are replaced")
        assert server.get("/", at=Path("s")).status == 200
        # Much more than what is kept for a reader who may come
        for _ in range(300):
            assert server.get("/fail", at=Path("s")).status == 500
        assert server.stop() == 0
    finally:
        os.close(reading)
        os.close(writing)


def test_a_stalled_stderr_stops_nobody_by_its_name_either(start: Starter) -> None:
    """`--error-logfile /dev/stderr`, as in a container."""
    reading, writing = full_pipe()
    try:
        server = start("plain:app", "--error-logfile", "/dev/stderr", ready=0, stderr=writing)
        assert server.get("/fail", at=server.listening_port()).status == 500
        server.heartbeats()
        assert server.stop() == 0
    finally:
        os.close(reading)
        os.close(writing)


def test_a_stderr_that_is_a_socket_is_written_to_by_its_name(start: Starter) -> None:
    """The journal's: it cannot be opened anew."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(15)
        server = start("plain:app", "--error-logfile", "/dev/stderr", ready=0, stderr=theirs.fileno())
        said = b""
        while b"is ready after" not in said:
            said += ours.recv(65536)
        assert server.get("/", at=server.listening_port()).status == 200


def test_a_fifo_in_place_of_a_log_stops_nobody_whether_it_is_read_or_not(start: Starter) -> None:
    os.mkfifo(start.cwd / "log")
    server = start("plain:app", "--access-logfile", "log")
    assert server.get("/?first").status == 200
    reading = os.open(start.cwd / "log", os.O_RDONLY | os.O_NONBLOCK)
    try:
        server.signal(SIGUSR1)
        for _ in range(20):  # more than it holds
            assert server.get("/?" + 8000 * "x").status == 200
        assert server.stop() == 0
        assert b"GET /?first " in os.read(reading, 65536)
    finally:
        os.close(reading)


def test_streams_that_are_closed_lead_nowhere_and_not_to_what_is_ours(start: Starter) -> None:
    log = start.cwd / "log"
    server = start.command(
        "sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *MINICORN, "plain:app", *ANY_PORT, "--error-logfile", str(log)
    )
    wait_until(lambda: log.exists() and "is ready after" in log.read_text(), "it is ready")
    (worker,) = server.workers()
    for pid in (server.pid, worker):
        assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)] == [os.devnull] * 3


def test_a_log_in_a_file_loses_nothing_to_the_applications_own_lines(start: Starter) -> None:
    """`minicorn app 2>log`: server and application share the file's end, not its beginning."""
    path = start.cwd / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        server = start("plain:app", ready=0, stderr=fd)
        wait_until(lambda: "is ready after" in path.read_text(), "it is ready")
        before = path.read_text()
        port = int(before.partition("http://127.0.0.1:")[2].split()[0])
        assert server.get("/say", at=port).text == "said"
        assert server.get("/fail", at=port).status == 500
        log = path.read_text()
        assert log.startswith(before), log
        assert log.count("the application speaks\n") == 1
        assert log.count("ValueError: as the path says") == 1
    finally:
        os.close(fd)


def test_what_the_application_writes_to_wsgi_errors_is_in_the_error_log(start: Starter) -> None:
    """That is where Flask logs, with the traceback of what a view has raised; after a rotation as well."""
    start.write("tells.py", TELLS)
    server = start("tells:app", "--error-logfile", "error.log", ready=0)
    log = start.cwd / "error.log"
    wait_until(lambda: log.exists() and "is ready after" in log.read_text(), "it is ready")
    port = server.listening_port()
    assert server.get("/first", at=port).status == 200
    assert log.read_text().endswith("\nof /first: \u20ac\nand on\n")
    log.rename(start.cwd / "error.log.1")
    server.signal(SIGUSR1)
    wait_until(log.exists, "it is opened again")
    wait_until(lambda: server.get("/next", at=port) and "of /next: \u20ac\n" in log.read_text(), "by the worker too")
    assert "of /" not in server.log.text


def test_nothing_is_printed_twice_by_fork(start: Starter) -> None:
    """Nor do the parent's atexit functions and `finally` run in its children."""
    start.write("site_script.py", PARENT.format(app="plain:app"))
    server: Server = start.command(sys.executable, "site_script.py")
    server.wait_ready(2)
    server.hup()
    assert server.stop() == 0
    said = server.output.finish().splitlines()
    assert said == ["buffered by the parent", "finally of the parent", "atexit of the parent"]
