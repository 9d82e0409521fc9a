"""TLS in a server of several workers: certificates renewed, connections that stay, and how they end."""

import http.client
import json
import re
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGHUP, SIGTERM
from subprocess import PIPE, STDOUT, Popen

import psutil
import pytest
from harness import Server, Starter, wait_until
from wirefuzz import hello

APP = """
import time
from pathlib import Path

def app(environ, start_response):
    if environ["PATH_INFO"] == "/hold":
        Path("held").touch()
        while not Path("release").exists():
            time.sleep(0.01)
    start_response("200 OK", [])
    return [b"{}"]
"""


class Client:
    """One TLS connection."""

    def __init__(self, server, pair) -> None:
        context = ssl.create_default_context(cafile=pair.certificate)
        self._http = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=15, context=context)

    def ask(self, path: str = "/") -> tuple[http.client.HTTPResponse, dict[str, object]]:
        self.begin(path)
        return self.finish()

    def begin(self, path: str) -> None:
        self._http.request("GET", path)
        self.sock = self._http.sock
        self.sock.suppress_ragged_eofs = False

    def finish(self):
        reply = self._http.getresponse()
        return reply, json.loads(reply.read())

    def read_to_end(self) -> bytes:
        """All that comes before close_notify; ssl.SSLEOFError where the connection is only cut."""
        data = b""
        while more := self.sock.recv(65536):
            data += more
        return data

    def close(self) -> None:
        self._http.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """`connect(server, pair)`: a client, closed at the end."""
    clients: list[Client] = []

    def connect(server, pair) -> Client:
        clients.append(Client(server, pair))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def shown(server) -> str:
    """The certificate that a new connection sees."""
    return ssl.get_server_certificate(("127.0.0.1", server.port), timeout=15).strip()


def is_retiring(pid) -> bool:
    return "retiring" in " ".join(psutil.Process(pid).cmdline())


def renew(pair, by) -> None:
    """Replace the files as renewal tools do."""
    shutil.copy(by.certificate, f"{pair.certificate}.new")
    shutil.copy(by.key, f"{pair.key}.new")
    Path(f"{pair.certificate}.new").replace(pair.certificate)
    Path(f"{pair.key}.new").replace(pair.key)


@pytest.fixture
def own_pair(start: Starter, make_pair):
    """A pair of this test's, to be replaced."""
    return make_pair(start.cwd, "a.test")


def test_it_says_https(start: Starter, connect, pair) -> None:
    server = start("who:app", *pair.flags)
    server.wait_log(r"Listening on https://127\.0\.0\.1:\d+")
    assert connect(server, pair).ask()[1]["wsgi.url_scheme"] == "https"


def test_hup_reads_the_certificates_again_and_connections_from_before_end_cleanly(
    start: Starter, connect, own_pair, other_pair
) -> None:
    server = start("who:app", "--workers", "2", *own_pair.flags)
    before, idle = Path(own_pair.certificate).read_text().strip(), connect(server, own_pair)
    assert shown(server) == before
    assert idle.ask()[0].headers["Connection"] is None
    renew(own_pair, other_pair)
    server.signal(SIGHUP)
    assert idle.read_to_end() == b""
    server.wait_log(r"generation 2 serves: 2 workers replaced")
    assert shown(server) == Path(other_pair.certificate).read_text().strip() != before


def test_a_broken_certificate_is_a_canary_that_fails_and_the_old_ones_serve_on(start: Starter, own_pair) -> None:
    server = start("who:app", "--workers", "2", *own_pair.flags)
    before, workers = shown(server), server.workers()
    good = Path(own_pair.certificate).read_text()
    Path(own_pair.certificate).write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
    server.signal(SIGHUP)
    server.wait_log(r"--certfile \S+a\.test\.pem, --keyfile \S+: no certificate and key in PEM form")
    assert "Traceback" not in server.log.text
    assert shown(server) == before and server.workers() >= workers
    Path(own_pair.certificate).write_text(good)
    server.hup()
    assert shown(server) == before


def test_a_broken_certificate_at_the_start_is_one_line_and_exit_code_1(start: Starter, own_pair) -> None:
    Path(own_pair.key).unlink()
    server = start("who:app", *own_pair.flags, ready=0)
    assert server.wait() == 1
    (line,) = server.log.finish().splitlines()
    assert line.startswith("minicorn: error: --certfile ") and line.endswith("No such file or directory")


def test_a_server_name_beyond_ascii_is_refused_without_a_traceback(start: Starter, connect, pair) -> None:
    server = start("who:app", *pair.flags)
    name = hello(ssl.create_default_context()).replace(b"a.test", b"a.t\xe9st")
    with socket.create_connection(("127.0.0.1", server.port), 15) as client:
        client.sendall(name)
        assert client.recv(100).startswith(b"\x15\x03")  # an alert
    server.wait_log("its TLS handshake failed: CALLBACK_FAILED")
    assert connect(server, pair).ask()[0].status == 200
    assert not re.search("Traceback|ignored", server.log.text)


def test_a_retiring_worker_ends_a_connection_after_its_reply_with_close_notify(start: Starter, connect, pair) -> None:
    server = start("who:app", *pair.flags)
    client = connect(server, pair)
    client.begin("/hold")
    wait_until((start.cwd / "held").exists, "the application has the request in hand")
    (pid,) = server.workers()
    server.signal(SIGHUP)
    wait_until(lambda: is_retiring(pid), "the worker is told to retire")
    (start.cwd / "release").touch()
    reply = client.read_to_end()
    assert reply.startswith(b"HTTP/1.1 200 ") and b"\r\nConnection: close\r\n" in reply


def test_a_retiring_worker_leaves_at_once_with_idle_connections(start: Starter, connect, pair) -> None:
    server = start("who:app", "--workers", "2", "--keep-alive", "600", *pair.flags)
    clients = [connect(server, pair) for _ in range(6)]
    for client in clients:
        client.ask()
    before = server.workers()
    server.hup()
    wait_until(lambda: not server.workers() & before, "the old workers are gone")
    assert [client.read_to_end() for client in clients] == [b""] * 6


@pytest.fixture
def spawn() -> Iterator[Callable[..., Popen[bytes]]]:
    """`spawn(*command)`: a client program, whose output is read by `read_to`; it is ended with the test."""
    processes: list[Popen[bytes]] = []

    def spawn(*command: str) -> Popen[bytes]:
        processes.append(Popen(command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, bufsize=0))
        return processes[-1]

    yield spawn
    for process in processes:
        process.kill()
        process.communicate()


def read_to(process: Popen[bytes], mark: bytes) -> bytes:
    """Its output up to `mark`; or to its end, which is b""."""
    assert process.stdout
    said = process.stdout.read(1)
    while said and not said.endswith(mark) and (more := process.stdout.read(1)):
        said += more
    return said


def test_openssl_and_curl_see_an_idle_connection_end_cleanly(start: Starter, spawn, pair) -> None:
    server = start("who:app", "--keep-alive", "600", *pair.flags)
    url = f"https://127.0.0.1:{server.port}/"
    s_client = spawn("openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-msg")
    # Its second request is sent three seconds after the first
    curl = spawn("curl", "-sSi", "--cacert", pair.certificate, "--noproxy", "*", "--rate", "20/m", url, url)
    s_client.stdin.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    for client in (s_client, curl):
        read_to(client, b"HTTP/1.1 200 OK")
        assert b"Connection: close" not in read_to(client, b'"pid": ')
    server.hup()
    said = read_to(s_client, b"the end")
    assert re.search(rb"<<< TLS 1\.3, Alert.*\n.*01 00\n", said), said
    assert b"HTTP/1.1 200 OK" in read_to(curl, b"HTTP/1.1 200 OK")
    assert curl.wait() == 0


def test_a_request_that_follows_a_reply_is_never_lost_in_a_roll(start: Starter, connect, pair) -> None:
    """Whoever asks again soon after a reply has the next one, and is told where it is the last."""
    server = start("who:app", "--workers", "2", "--keep-alive", "600", *pair.flags)
    stop, asked, lost = threading.Event(), [], []

    def ask_on() -> None:
        while not stop.is_set():
            client, answered = connect(server, pair), time.monotonic()
            try:
                while client.ask()[0].headers["Connection"] != "close":
                    asked.append(1)
                    answered = time.monotonic()
            except OSError as error:
                if time.monotonic() - answered < 1:  # else it was idle for so long
                    lost.append(error)
            client.close()

    threads = [threading.Thread(target=ask_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    for roll in range(1, 6):
        before = len(asked)
        server.hup(roll)
        wait_until(lambda before=before: len(asked) > before + 20, "requests go on")
    stop.set()
    for thread in threads:
        thread.join()
    assert not lost


def serve_saved(start: Starter, pair) -> Server:
    """A server with --reload, which has seen all that was written before."""
    start.write("saved.py", APP.format(1))
    server = start("saved:app", "--reload", *pair.flags)
    start.write("marker.py", "")
    server.wait_log(r"(?s)Detected \w+: marker\.py.*Reloaded in")
    wait_until(lambda: len(server.workers()) == 3, "beside watcher and template one worker is left")
    return server


def test_a_connection_of_before_a_save_is_ended_so_that_the_next_request_is_the_new_codes(
    start: Starter, connect, pair
) -> None:
    """It cannot wait for the new code, as others do."""
    server = serve_saved(start, pair)
    before = connect(server, pair)
    assert before.ask()[1] == 1
    start.write("saved.py", APP.format(2))
    assert before.read_to_end() == b""
    assert connect(server, pair).ask()[1] == 2


def test_a_request_that_came_with_a_save_is_answered(start: Starter, connect, pair) -> None:
    """By the old code at worst: nobody else has its connection."""
    server = serve_saved(start, pair)
    clients = [connect(server, pair) for _ in range(2)]
    assert [client.ask()[1] for client in clients] == [1, 1]
    clients[0].begin("/hold")
    wait_until((start.cwd / "held").exists, "the application has the request in hand")
    clients[1].begin("/")
    start.write("saved.py", APP.format(2))
    server.wait_log(r"Detected modified: saved.py")
    (start.cwd / "release").touch()
    assert [client.finish()[1] for client in clients] == [1, 1]


def test_term_ends_idle_connections_with_close_notify_at_once(start: Starter, connect, pair) -> None:
    server = start("who:app", *pair.flags)
    client = connect(server, pair)
    client.ask()
    server.signal(SIGTERM)
    assert client.read_to_end() == b""
    assert server.wait() == 0


def test_connections_are_spread_over_the_workers_for_they_cannot_be_later(start: Starter, connect, pair) -> None:
    server = start("who:app", "--workers", "4", *pair.flags)
    clients = [connect(server, pair) for _ in range(12)]
    pids = [client.ask()[1]["pid"] for client in clients]
    assert len(set(pids)) == 4 and max(map(pids.count, pids)) <= 6, pids
    # Each has its worker for good
    assert [client.ask()[1]["pid"] for client in clients] == pids
