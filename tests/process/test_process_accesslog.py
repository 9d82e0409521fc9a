"""The access log: gunicorn's own lines for the same requests, and lines for requests that died."""

import base64
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGUSR1

import pytest
from cages import cage
from harness import Server, Starter, read, wait_until

# All atoms but those that tell of time and process
SAME = "|".join(f"%({atom})s" for atom in ["h", "l", "u", "r", "s", "m", "U", "q", "H", "b", "B", "f", "a"])
SAME += "".join(f"|%({{{name}}}i)s" for name in ("User-Agent", "x-thing", "Content-Length", "missing"))
SAME += "".join(f"|%({{{name}}}o)s" for name in ("Content-Type", "X-CACHE", "missing"))
SAME += "|%({REQUEST_METHOD}e)s|%({missing}e)s|%(B)05d|%(m)-7s|100%%"
# Those that tell of time and process: the same shape
SHAPE = "%(t)s %(T)s %(M)s %(D)s %(L)s %(p)s"
BASIC = "Authorization: Basic " + base64.b64encode(b"ann:secret").decode()
REQUESTS = [
    "GET / HTTP/1.1",
    "GET /a/b?c=d&e=%20f HTTP/1.1\nUser-Agent: Mozilla/5.0 (X11)\nReferer: http://example.com/?q=1",
    "GET /%41%20b HTTP/1.1\nX-Thing: one",
    "HEAD / HTTP/1.1",
    "GET /none HTTP/1.1",
    "GET /stream HTTP/1.1",
    "GET /missing HTTP/1.0",
    'GET /?q="quoted" HTTP/1.1\nUser-Agent: say "hello"',
    f"GET / HTTP/1.1\n{BASIC}",
    "GET / HTTP/1.1\nAuthorization: Bearer abc",
    "GET / HTTP/1.1\nUser-Agent:",
    "POST /echo HTTP/1.1\nContent-Type: text/plain\nContent-Length: 5\n\nhello",
    "DELETE /item/7?sure HTTP/1.1",
]


def talk(port: int, request: str) -> None:
    """Send one request, and read until the server closes."""
    head, _, body = request.partition("\n\n")
    first, *fields = head.split("\n")
    lines = [first, "Host: test", "Connection: close", *fields]
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body.encode())
        while client.recv(65536):
            pass


def lines(path: Path, count: int) -> list[str]:
    """The file's lines, when there are so many."""
    wait_until(lambda: path.exists() and path.read_text().count("\n") >= count, f"{count} lines in {path.name}")
    return path.read_text().splitlines()


def test_atoms_are_gunicorns_own_for_the_same_requests(start: Starter) -> None:
    logs = start.cwd / "minicorn.log", start.cwd / "gunicorn.log"
    flags = ("--access-logformat", f"{SAME}\t{SHAPE}", "--access-logfile")
    ours = start("logs_app:app", *flags, str(logs[0]))
    command = (sys.executable, "-m", "gunicorn", "logs_app:app", "--bind", "127.0.0.1:0", *flags, str(logs[1]))
    theirs = start.command(*command)
    their_port = int(theirs.wait_log(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
    for request in REQUESTS:
        talk(ours.port, request)
        talk(their_port, request)
    written = [lines(log, len(REQUESTS)) for log in logs]
    for mine, gunicorns in zip(*written, strict=True):
        assert mine.split("\t")[0] == gunicorns.split("\t")[0]
        shape = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] \d+ \d+ \d+ \d\.\d{6} <\d+>"
        assert re.fullmatch(shape, mine.split("\t")[1])
        assert re.fullmatch(shape, gunicorns.split("\t")[1])


def test_where_gunicorn_lets_a_client_write_anything_we_escape(start: Starter) -> None:
    log = start.cwd / "access.log"
    server = start("logs_app:app", "--access-logfile", str(log), "--access-logformat", "%(U)s")
    talk(server.port, "GET /a%0a%22b%5c%c3%a9 HTTP/1.1")
    assert lines(log, 1) == [r"/a\x0a\"b\\\xc3\xa9"]


# Durations and names


def entries(path: Path, count: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines(path, count)]


def test_json_tells_worker_generation_and_where_the_time_went(start: Starter) -> None:
    log = start.cwd / "access.log"
    server = start("logs_app:app", "--access-logfile", str(log), "--access-logformat", "json")
    server.hup()
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        began = time.monotonic()
        client.sendall(b"GET /nap?0.1 HTTP/1.1\r\n")
        time.sleep(0.2)  # what is measured: the client's own slowness
        start_header = f"X-Request-Start: t={time.time() - 5:.6f}\r\n".encode()
        client.sendall(b"Host: test\r\nX-Request-ID: mine-1\r\n" + start_header + b"\r\n")
        client.recv(65536)
        took = time.monotonic() - began
    (found,) = entries(log, 1)
    assert found["minicorn.request.id"] == "mine-1"
    assert (found["minicorn.worker"], found["minicorn.generation"]) == (2, 2)
    assert found["process.pid"] in server.workers()
    read, app = found["minicorn.duration.read"], found["minicorn.duration.app"]
    assert isinstance(read, float) and isinstance(app, float)
    assert 0.15 <= read <= took
    assert 0.1 <= app <= took
    assert 5.0 <= float(str(found["minicorn.duration.queue"])) <= 5.0 + took
    assert 0 <= float(str(found["minicorn.duration.write"])) <= took


def test_a_request_has_a_name_of_its_own_that_the_application_knows(start: Starter) -> None:
    log = start.cwd / "access.log"
    server = start("logs_app:app", "--access-logfile", str(log), "--access-logformat", "%({request_id}x)s")
    names = [server.get("/id").text for _ in range(3)]
    assert len(set(names)) == 3
    assert lines(log, 3) == names


MEDDLES = """
def app(environ, start_response):
    headers = [("Content-Length", "2")]
    start_response("200 OK", headers)
    headers[:] = [None, ("a", "b", "c")]
    if environ["PATH_INFO"] == "/clear":
        environ.clear()
    environ |= {"CONTENT_LENGTH": 5, "REMOTE_PORT": 80, "SERVER_PROTOCOL": None, 7: 8}
    return [b"ok"]
"""


def test_what_an_application_leaves_in_environ_and_headers_ends_no_worker(start: Starter) -> None:
    start.write("meddles.py", MEDDLES)
    log = start.cwd / "access.log"
    server = start("meddles:app", "--access-logfile", str(log), "--access-logformat", "json")
    assert [server.get(path).text for path in ("/first", "/clear")] == ["ok", "ok"]
    first, clear = entries(log, 2)
    assert (first["url.path"], first["http.request.body.size"], first["client.port"]) == ("/first", 5, 80)
    assert (clear["url.path"], clear["http.response.status_code"]) == ("", 200)
    assert first["process.pid"] == clear["process.pid"]


# Requests that die


def find(server: Server, cause: str, path: str, log: Path, ready: int = 2) -> dict[str, object]:
    """The one line of the one request, which nobody answered."""
    (found,) = entries(log, 1)
    assert found["error.type"] == cause
    assert found["url.path"] == path
    assert found["user_agent.original"] == "dying/1.0"
    assert found["minicorn.request.id"] == "dying-1"
    assert "http.response.status_code" not in found
    server.wait_log("is ready after", count=ready)
    return found


def dying(path: str) -> str:
    return f"GET {path} HTTP/1.1\nUser-Agent: dying/1.0\nX-Request-ID: dying-1"


def serve(start: Starter, log: Path, *flags: str, **options: object) -> Server:
    return start("logs_app:app", "--access-logfile", str(log), "--access-logformat", "json", *flags, **options)


def one_record(server: Server, pattern: str, said: str = "SIGABRT|SIGSEGV|SIGKILL") -> str:
    """The error log's record of a worker's end: there is one."""
    found = server.wait_log(rf"^.*worker \d+ .*{pattern}.*$")[0]
    assert len(re.findall(said, server.log.text)) == 1, server.log.text
    return found


def test_a_request_that_hangs_has_its_line_and_one_record_with_its_stack(start: Starter) -> None:
    log = start.cwd / "access.log"
    server = serve(start, log, "--timeout", "1")
    talk(server.port, dying("/hang"))
    found = find(server, "timeout", "/hang", log)
    assert float(str(found["http.server.request.duration"])) >= 1
    assert "in GET /hang" in one_record(server, "was late by")
    server.wait_log(r'File ".*logs_app\.py", line \d+ in hang')


def test_a_request_that_crashes_has_its_line_and_one_record_with_its_stack(start: Starter) -> None:
    log = start.cwd / "access.log"
    server = serve(start, log)
    talk(server.port, dying("/crash"))
    find(server, "signal", "/crash", log)
    assert "in GET /crash" in one_record(server, "SIGSEGV")
    server.wait_log(r'File ".*logs_app\.py", line \d+ in crash')


def test_a_request_whose_worker_is_killed_has_its_line_and_one_record(start: Starter) -> None:
    log = start.cwd / "access.log"
    server = serve(start, log)
    (worker,) = server.workers()
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: t\r\nUser-Agent: dying/1.0\r\nX-Request-ID: dying-1\r\n\r\n")
        pages = server.heartbeats()
        wait_until(lambda: b"dying-1" in (pages / "1").read_bytes(), "the application has it in hand")
        os.kill(worker, SIGKILL)
        find(server, "signal", "/hang", log)
    assert "in GET /hang" in one_record(server, "SIGKILL")


def test_a_request_that_gets_no_memory_has_its_line_and_one_record_with_its_stack(start: Starter) -> None:
    """RLIMIT_AS is felt as MemoryError: a 500, and the worker lives."""
    log = start.cwd / "access.log"
    server = serve(start, log)
    talk(server.port, dying("/devour"))
    (found,) = entries(log, 1)
    assert (found["http.response.status_code"], found["error.type"]) == (500, "500")
    assert found["minicorn.request.id"] == "dying-1"
    server.wait_log(r"GET /devour: the application raised\n(?:.*\n)*?.*in devour\n(?:.*\n)*?MemoryError")
    assert server.log.text.count("MemoryError") == 1


@pytest.fixture
def step() -> Iterator[str]:
    """Into a control group whose processes may have 192 MiB of memory together."""
    with cage(192) as step:
        yield step


# The server, which `start` ends, goes before its cage
@pytest.fixture
def start_caged(step: str, start: Starter) -> Starter:
    return start


def test_a_request_that_the_kernel_kills_for_its_memory_has_its_line_and_one_record(
    start_caged: Starter, step: str
) -> None:
    log = start_caged.cwd / "access.log"
    server = serve(start_caged, log, "--workers", "2", prelude=step)
    talk(server.port, dying("/swallow"))
    find(server, "oom", "/swallow", log, ready=3)
    assert "in GET /swallow" in one_record(server, r"want of memory \(OOM\)", said="OOM")
    assert server.get("/").text == "hello"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_error_page_of_an_application_that_has_raised_has_its_size(start: Starter, method: str) -> None:
    log = start.cwd / "access.log"
    server = serve(start, log)
    talk(server.port, f"{method} /nap?no-number HTTP/1.1")
    (found,) = entries(log, 1)
    size = len("500 Internal Server Error\n") if method == "GET" else 0
    assert (found["http.response.status_code"], found["http.response.body.size"]) == (500, size)
    assert float(str(found["minicorn.duration.write"])) >= 0, "what it took before it raised counts once"


@pytest.mark.parametrize("path", ["/", "/missing"])
def test_a_request_that_is_answered_has_one_line(start: Starter, path: str) -> None:
    log = start.cwd / "access.log"
    server = serve(start, log)
    server.get(path)
    assert server.stop() == 0
    (found,) = entries(log, 1)
    assert found["url.path"] == path


def test_the_error_log_as_json_says_the_same_in_fields(start: Starter) -> None:
    errors = start.cwd / "error.log"
    flags = ("--log-format", "json", "--error-logfile", str(errors), "--timeout", "1")
    server = start("logs_app:app", "--access-logfile", str(start.cwd / "access.log"), *flags, bind=True, ready=0)

    def found(pattern: str) -> list[dict[str, object]]:
        text = errors.read_text() if errors.exists() else ""
        return [record for line in text.splitlines() if re.search(pattern, str((record := json.loads(line))["body"]))]

    wait_until(lambda: found("is ready after"), "it is ready")
    talk(server.listening_port(), dying("/hang?for=ever"))
    wait_until(lambda: found("was late by"), "the record is there")
    (record,) = found("was late by")
    assert record["severity_text"] == "ERROR"
    assert (record["error.type"], record["http.request.method"], record["url.path"]) == ("timeout", "GET", "/hang")
    assert record["minicorn.worker.end"] == "killed by SIGABRT"
    assert (record["client.address"], record["minicorn.request.id"]) == ("127.0.0.1", "dying-1")
    assert "in hang" in str(record["exception.stacktrace"])


# Requests that the application never sees

REFUSED = [
    (b"GET / HTTP/9.9\r\n\r\n", '"GET / HTTP/9.9" 505 31 "-"'),
    (b"GET /a b HTTP/1.1\r\nHost: t\r\nUser-Agent: odd/1\r\n\r\n", '"GET /a b HTTP/1.1" 400 16 "-"'),
    (b"\x16\x03\x01\x02\r\n\r\n", r'"\x16\x03\x01\x02  HTTP/1.1" 400 16 "-"'),
    (b"GET /" + b"a" * 70000, f'"GET /{"a" * 2043} HTTP/1.1" 414 17 "-"'),
    (b"GET / HTTP/1.1\r\nHost: t\r\nUser-Agent: big/1\r\nX: " + b"a" * 70000,
     '"GET / HTTP/1.1" 431 36 "big/1"'),
    (b"HEAD / HTTP/1.1\r\nHost: t\r\nUser-Agent: e/1\r\nExpect: cake\r\n\r\n", '"HEAD / HTTP/1.1" 417 23 "-"'),
    (b"POST /up HTTP/1.1\r\nHost: t\r\nUser-Agent: up/1\r\nContent-Length: 2000000\r\n\r\n",
     '"POST /up HTTP/1.1" 413 22 "up/1"'),
    (b"GET /slow HTTP/1.1\r\nHost: t\r\nUser-Agent: slow/1\r\n", '"GET /slow HTTP/1.1" 408 20 "slow/1"'),
]  # fmt: skip


def test_a_request_that_is_refused_has_its_line_too(start: Starter) -> None:
    log = start.cwd / "access.log"
    flags = ("--access-logformat", '"%(r)s" %(s)s %(B)s "%(a)s"', "--recv-timeout", "1")
    server = start("logs_app:app", "--access-logfile", str(log), *flags)
    for data, line in REFUSED:
        with socket.create_connection(("127.0.0.1", server.port), 10) as client:
            client.sendall(data)
            reply = b"".join(iter(lambda client=client: client.recv(65536), b""))
        head, _, body = reply.partition(b"\r\n\r\n")
        status = head.split()[1].decode()
        assert f'" {status} {len(body)} "' in line, reply
        wait_until(lambda line=line: log.exists() and line in log.read_text().splitlines(), line)
    assert len(log.read_text().splitlines()) == len(REFUSED)


def test_who_is_refused_is_told_by_a_trusted_proxy(start: Starter) -> None:
    log = start.cwd / "access.log"
    server = serve(start, log)
    talk(server.port, "POST /up HTTP/1.1\nX-Forwarded-For: 192.0.2.9\nContent-Length: 2000000")
    (found,) = entries(log, 1)
    assert (found["http.response.status_code"], found["client.address"]) == (413, "192.0.2.9")


def test_a_request_that_waits_too_long_for_a_worker_has_its_line(start: Starter) -> None:
    log = start.cwd / "access.log"
    flags = ("--access-logfile", str(log), "--access-logformat", "json", "--queue-timeout", "0.5")
    server = start("plain:app", *flags)
    held, late = server.hold(), server.send("/late")
    time.sleep(0.7)  # what it waits, at least
    server.release()
    assert (read(held).status, read(late).status) == (200, 503)
    found = next(each for each in entries(log, 2) if each["url.path"] == "/late")
    assert (found["http.response.status_code"], found["error.type"]) == (503, "503")
    assert float(str(found["minicorn.duration.queue"])) > 0.5


# Rotation


def test_no_line_is_lost_when_the_log_is_rotated_under_load_with_and_without_a_signal(start: Starter) -> None:
    log = start.cwd / "access.log"
    flags = ("--access-logfile", str(log), "--access-logformat", "%(U)s", "--workers", "2")
    server = start("logs_app:app", *flags)
    moved = [start.cwd / "access.log.1", start.cwd / "access.log.2"]
    sent = 0

    def ask(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            server.get(f"/{sent}")
            sent += 1

    ask(20)
    log.rename(moved[0])  # as logrotate does with `create`, and no signal
    log.touch()
    while not log.read_text():
        ask(1)
    ask(20)
    log.rename(moved[1])
    server.signal(SIGUSR1)
    wait_until(log.exists, "it is open again")
    ask(20)
    assert server.stop() == 0
    written = "".join(path.read_text() for path in [*moved, log]).split()
    assert sorted(written) == sorted(f"/{number}" for number in range(sent))
    assert moved[0].read_text() and moved[1].read_text() and log.read_text()


# What the application prints


def test_what_the_application_prints_goes_to_the_error_log(start: Starter) -> None:
    server = start("logs_app:app", "--capture-output", "--log-level", "info")
    server.get("/say?hello")
    server.wait_log("INFO:     said hello")
    server.wait_log("WARNING:  complained hello")
    assert server.stop() == 0
    assert server.output.finish() == ""
