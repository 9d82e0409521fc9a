"""TLS in a server of several workers: certificates renewed, connections that stay, and how they end."""

import http.client
import json
import shutil
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGHUP, SIGTERM

import psutil
import pytest
from harness import Starter, wait_until


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
    reply, environ = idle.ask()
    assert reply.headers["Connection"] is None
    renew(own_pair, other_pair)
    server.signal(SIGHUP)
    wait_until(lambda: is_retiring(environ["pid"]), "the old worker retires")
    # What is idle is no worse off than with any server's keep-alive: its next request is served, and its last
    reply, again = idle.ask()
    assert (reply.status, reply.headers["Connection"], again["pid"]) == (200, "close", environ["pid"])
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


def test_term_ends_idle_connections_with_close_notify_at_once(start: Starter, connect, pair) -> None:
    server = start("who:app", *pair.flags)
    client = connect(server, pair)
    client.ask()
    server.signal(SIGTERM)
    assert client.read_to_end() == b""
    assert server.wait(10) == 0


def test_connections_are_spread_over_the_workers_for_they_cannot_be_later(start: Starter, connect, pair) -> None:
    server = start("who:app", "--workers", "4", *pair.flags)
    clients = [connect(server, pair) for _ in range(12)]
    pids = [client.ask()[1]["pid"] for client in clients]
    assert len(set(pids)) == 4 and max(map(pids.count, pids)) <= 6, pids
    # Each has its worker for good
    assert [client.ask()[1]["pid"] for client in clients] == pids
