"""One connection, many requests: persistence, pipelining, and a turn for everybody."""

import queue
import socket
import threading
import time

import pytest

from minicorn.config.address import Tcp
from minicorn.system import listeners


class Recorder:
    """An application that answers with its path, and keeps the paths."""

    def __init__(self):
        self.seen = []

    def __call__(self, environ, start_response):
        self.seen.append(environ["PATH_INFO"])
        environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]


@pytest.fixture
def recorder():
    return Recorder()


class Gate:
    """An application that waits in each request until it is let go."""

    def __init__(self):
        self.arrivals = queue.Queue()
        self._go = threading.Semaphore(0)

    def __call__(self, environ, start_response):
        self.arrivals.put(environ["PATH_INFO"])
        assert self._go.acquire(timeout=5)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    def next(self):
        """The path of the next request that has come in."""
        return self.arrivals.get(timeout=5)

    def let_go(self, count=1):
        self._go.release(count)


# Persistence


@pytest.mark.parametrize(
    ("version", "lines", "connection"),
    [
        ("HTTP/1.1", [], []),
        ("HTTP/1.1", ["Connection: keep-alive"], []),
        ("HTTP/1.1", ["Connection: foo"], []),
        ("HTTP/1.0", ["Connection: keep-alive"], ["keep-alive"]),
        ("HTTP/1.0", ["Connection: Keep-Alive"], ["keep-alive"]),
    ],
)
def test_a_connection_that_may_go_on_goes_on(serve, recorder, version, lines, connection):
    client = serve(recorder).connect()
    for number in range(3):
        reply = client.ask(f"/{number}", *lines, version=version)
        assert reply.body == b"/%d" % number
        assert [value.lower() for value in reply.all("Connection")] == connection


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        ("HTTP/1.1", ["Connection: close"]),
        ("HTTP/1.1", ["connection: CLOSE"]),
        ("HTTP/1.1", ["Connection: foo, close"]),
        ("HTTP/1.1", ["Connection: foo", "Connection: close"]),
        ("HTTP/1.1", ["Connection: keep-alive, close"]),
        ("HTTP/1.0", []),
        ("HTTP/1.0", ["Connection: foo"]),
        ("HTTP/1.0", ["Connection: close, keep-alive"]),
    ],
    ids=str,
)
def test_a_connection_that_is_to_end_ends_and_nothing_behind_is_parsed(serve, recorder, version, lines):
    client = serve(recorder).connect()
    client.send(client.render("/1", *lines, version=version) + client.render("/2"))
    assert client.reply()["Connection"] == "close"
    assert client.rest() == b""
    assert recorder.seen == ["/1"]


@pytest.mark.parametrize("most", [1, 3])
def test_the_last_of_the_requests_that_a_connection_may_make_is_told_so(serve, recorder, most):
    client = serve(recorder, max_keepalive_requests=most).connect()
    replies = [client.ask() for _ in range(most)]
    assert ["Connection" in reply for reply in replies] == [False] * (most - 1) + [True]
    assert replies[-1]["Connection"] == "close"
    assert client.rest() == b""


def test_nothing_behind_the_last_request_that_a_connection_may_make_is_parsed(serve, recorder):
    client = serve(recorder, max_keepalive_requests=2).connect()
    client.send(b"".join(client.render(f"/{number}") for number in range(4)))
    assert [client.reply().body for _ in range(2)] == [b"/0", b"/1"]
    assert client.rest() == b""
    assert recorder.seen == ["/0", "/1"]


def test_no_limit_of_requests_is_no_limit(serve, recorder):
    client = serve(recorder, max_keepalive_requests=0).connect()
    assert all("Connection" not in client.ask() for _ in range(150))


def test_no_keep_alive_is_none(serve, recorder):
    client = serve(recorder, keep_alive=0).connect()
    assert client.ask()["Connection"] == "close"
    assert client.rest() == b""


def test_an_empty_line_before_a_request_is_ignored(serve, recorder):
    """RFC 9112 2.2: old clients send one behind a body."""
    client = serve(recorder).connect()
    for number in range(3):
        client.send(client.render(f"/{number}", method="POST", body=b"x") + b"\r\n")
        assert client.reply().body == b"/%d" % number


# Pipelining


def pipeline(client, count):
    requests = []
    for number in range(count):
        kind = number % 3
        if kind == 0:
            requests.append(client.render(f"/{number}"))
        elif kind == 1:
            requests.append(client.render(f"/{number}", method="POST", body=b"GET /evil HTTP/1.1\r\n\r\n"))
        else:
            head = client.render(f"/{number}", "Transfer-Encoding: chunked", method="POST")
            requests.append(head + b"5\r\nGET /\r\n0\r\n\r\n")
    return b"".join(requests)


@pytest.mark.parametrize("size", [1, 7, 4096, 10**6])
def test_pipelined_requests_are_answered_in_order(serve, recorder, size):
    client = serve(recorder).connect()
    data = pipeline(client, 24)
    for start in range(0, len(data), size):
        client.send(data[start : start + size])
    assert [client.reply().body for _ in range(24)] == [b"/%d" % number for number in range(24)]


def test_pipelined_heads_and_their_silent_replies_stay_in_step(serve, recorder):
    client = serve(recorder).connect()
    client.send(b"".join(client.render(f"/{number}", method="HEAD" if number % 2 else "GET") for number in range(10)))
    for number in range(10):
        reply = client.reply("HEAD" if number % 2 else "GET")
        assert reply.body == (b"" if number % 2 else b"/%d" % number)


def test_a_half_closed_client_gets_the_replies_to_all_that_it_has_pipelined(serve, recorder):
    client = serve(recorder).connect()
    client.send(b"".join(client.render(f"/{number}") for number in range(5)))
    client.half_close()
    assert client.rest().count(b"HTTP/1.1 200 OK\r\n") == 5


def test_a_pipeline_waits_for_one_request_a_turn(serve):
    gate = Gate()
    server = serve(gate)
    hog, other = server.connect(), server.connect()
    hog.send(b"".join(hog.render("/hog") for _ in range(50)))
    assert gate.next() == "/hog"
    other.send(other.render("/other"))
    gate.let_go(51)
    order = [gate.next() for _ in range(50)]
    assert order.index("/other") <= 1
    assert other.reply().body == b"ok"
    assert [hog.reply().body for _ in range(50)] == [b"ok"] * 50


def test_a_pipeline_that_goes_on_arriving_waits_for_one_request_a_turn(serve):
    gate = Gate()
    server = serve(gate, max_keepalive_requests=0)
    hog, other = server.connect(), server.connect()
    batch = hog.render("/hog") * 5
    hog.send(batch)
    assert gate.next() == "/hog"
    for _ in range(10):  # at each turn, some more has come
        hog.send(batch)
        gate.let_go()
        assert gate.next() == "/hog"
    other.send(other.render("/other"))
    gate.let_go(100)
    order = [gate.next() for _ in range(20)]
    assert order.index("/other") <= 1


def test_two_pipelines_take_turns(serve):
    gate = Gate()
    server = serve(gate)
    first, second = server.connect(), server.connect()
    first.send(first.render("/0") + first.render("/first") * 10)
    assert gate.next() == "/0"
    second.send(second.render("/second") * 10)
    gate.let_go(21)
    order = [gate.next() for _ in range(20)]
    assert all({*order[start : start + 2]} == {"/first", "/second"} for start in range(0, 18, 2)), order


def test_what_is_pipelined_beyond_measure_stays_with_the_client(serve):
    """Nothing else bounds the memory that a client which does not wait can take."""
    listener = listeners.bind(Tcp("127.0.0.1", 0))
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    pause = threading.Event()

    def app(environ, start_response):
        pause.wait(0.002)
        start_response("204 No Content", [])
        return []

    client = serve(app, bound=listener, max_keepalive_requests=0).connect()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    client.sock.settimeout(0.5)
    batch = client.render("/", "X-Padding: " + "x" * 900) * 64
    sent, rest = 0, batch
    deadline = time.monotonic() + 1.5
    try:
        while sent < 16 * 2**20 and time.monotonic() < deadline:
            taken = client.sock.send(rest)
            sent += taken
            rest = rest[taken:] or batch  # a request cut in two would be refused, and all behind it thrown away
    except TimeoutError:
        pass
    # 500 requests a second are answered at most, 0.5 MiB: what is beyond is held by somebody
    assert sent < 4 * 2**20
