"""How connections end: what was sent arrives, and a client that goes, in whatever way, costs nothing."""

import os
import threading
import time

import pytest

from minicorn.serving.connection import LINGER_TIME

LARGE = os.urandom(200_000)


def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x" * 8_000_000] if environ["PATH_INFO"] == "/large" else [b"ok"]


class Gate:
    """An application that tells when it is inside, and replies with `LARGE` when it is let go."""

    def __init__(self):
        self.inside = threading.Event()
        self.go = threading.Event()
        self.seen = []

    def __call__(self, environ, start_response):
        self.seen.append(environ["PATH_INFO"])
        self.inside.set()
        assert self.go.wait(5)
        start_response("200 OK", [])
        return [LARGE]


MEBIBYTE = b"x" * 2**20
REFUSED_EARLY = {
    413: b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1048576\r\n\r\n",
    431: b"GET / HTTP/1.1\r\nHost: test\r\nX-Large: " + b"x" * 100_000,
    400: b"nonsense\r\n\r\n",
}


@pytest.mark.parametrize("status", REFUSED_EARLY)
@pytest.mark.parametrize("lines", [b"", b"Connection: close\r\n"])
def test_a_refusal_arrives_at_a_client_that_is_still_sending(serve, status, lines):
    client = serve(app, max_body_size=1000).connect()
    client.send(REFUSED_EARLY[status].replace(b"Host: test\r\n", b"Host: test\r\n" + lines) + MEBIBYTE)
    reply = client.reply()
    assert (reply.status, reply["Connection"]) == (status, "close")
    assert client.rest() == b""


def test_a_client_that_has_asked_for_the_close_is_not_waited_for(serve, wait_until):
    """All that it has sent was read: a close is no reset."""
    server = serve(app)
    client = server.connect()
    client.send(client.render("/", "Connection: close"))
    assert client.reply().body == b"ok"
    began = time.monotonic()
    wait_until(lambda: not server.server.connections)
    assert time.monotonic() - began < LINGER_TIME / 2


def test_a_refusal_arrives_at_a_client_that_sends_chunk_after_chunk(serve):
    client = serve(app, max_body_size=1000).connect()
    client.send(client.render("/", "Transfer-Encoding: chunked", method="POST"))
    for _ in range(16):
        client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    assert client.reply().status == 413
    assert client.rest() == b""


def test_a_refused_client_that_never_stops_sending_is_dropped(serve):
    client = serve(app, max_body_size=1000).connect()
    client.send(REFUSED_EARLY[413])
    deadline = time.monotonic() + 10
    with pytest.raises(ConnectionError):
        while time.monotonic() < deadline:
            client.send(MEBIBYTE)


def test_a_refused_client_that_stays_is_dropped(serve, open_descriptors, wait_until):
    server = serve(app, max_body_size=1000)
    before = open_descriptors()
    client = server.connect()
    client.send(REFUSED_EARLY[413])
    assert client.reply().status == 413
    wait_until(lambda: open_descriptors() == before + 1)


def test_those_that_linger_hold_nobody_up(serve):
    server = serve(app, max_body_size=1000)
    for _ in range(10):
        client = server.connect()
        client.send(REFUSED_EARLY[413] + b"x" * 1000)
        assert client.reply().status == 413
    began = time.monotonic()
    assert server.ask().body == b"ok"
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("lines", "settings"),
    [
        (["Connection: close"], {}),
        ([], {"max_keepalive_requests": 1}),
        (["Connection: close"], {"max_keepalive_requests": 1}),
    ],
    ids=["the client asked", "the server decided", "both"],
)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_a_reply_arrives_whole_at_a_client_whose_input_is_not_read(serve, lines, settings, version):
    gate = Gate()
    server = serve(gate, **settings)
    client = server.connect(receive_buffer=4096)
    client.send(client.render("/1", *lines, version=version))
    assert gate.inside.wait(5)
    client.send(client.render("/2") + b"x" * 1000)
    gate.go.set()
    assert server.ask("/other").body == LARGE  # the server is done with the first by now
    assert client.reply().body == LARGE
    assert client.rest() == b""
    assert gate.seen == ["/1", "/other"]


# Half-closed


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("body", [None, b"x" * 100_000], ids=["GET", "POST"])
def test_a_half_closed_client_gets_its_reply(serve, version, body):
    gate = Gate()
    client = serve(gate).connect(receive_buffer=4096)
    client.send(client.render(method="GET" if body is None else "POST", version=version, body=body))
    client.half_close()
    assert gate.inside.wait(5)
    gate.go.set()
    assert client.reply().body == LARGE
    assert client.rest() == b""


def cpu_over_a_second(server):
    """CPU time that this process takes while the server has nothing to do for a second."""
    began = time.process_time()
    server.thread.join(1)
    assert server.thread.is_alive()
    return time.process_time() - began


HALF_CLOSED = {
    "half a head": b"GET / HT",
    "half a body": b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345",
    "a refused request": b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\n",
    "a large reply": b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n",
    "a large reply to HTTP/1.0": b"GET /large HTTP/1.0\r\n\r\n",
    "a pipeline": b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n" * 3,
}


def test_half_closed_clients_cause_no_busy_loop(serve):
    server = serve(app)
    for data in HALF_CLOSED.values():
        client = server.connect(receive_buffer=4096)
        client.send(data)
        client.half_close()
    server.connect().half_close()
    assert server.ask().body == b"ok"
    assert cpu_over_a_second(server) < 0.4


def test_clients_of_all_kinds_that_stay_cause_no_busy_loop(serve):
    server = serve(app, max_body_size=1000)
    for data in (b"", *HALF_CLOSED.values(), REFUSED_EARLY[413], REFUSED_EARLY[400]):
        server.connect(receive_buffer=4096).send(data)
    assert server.ask().body == b"ok"
    assert cpu_over_a_second(server) < 0.4


# Gone

STAGES = {
    "before a byte": b"",
    "in the request line": b"GET / HT",
    "in the head": b"GET / HTTP/1.1\r\nHost: test\r\n",
    "before the body": b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n",
    "in the body": b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n" + b"x" * 90_000,
    "in a chunk": b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nFFFF\r\nabc",
    "before 100 Continue": b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    "before the reply": b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
    "before a large reply": b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n",
    "before the refusal": b"nonsense\r\n\r\n",
    "before several replies": b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n" * 5,
}


@pytest.mark.parametrize("awaited", [False, True], ids=["at once", "after the first byte back"])
@pytest.mark.parametrize("way", ["close", "reset"])
def test_clients_that_vanish_at_any_stage_leave_nothing_behind(serve, open_descriptors, wait_until, way, awaited):
    server = serve(app)
    before = open_descriptors()
    for stage, data in STAGES.items():
        client = server.connect()
        client.send(data)
        if awaited and ("reply" in stage or "Continue" in stage or "refusal" in stage):
            client.read(1)
        getattr(client, way)()
        assert server.ask().body == b"ok"
    wait_until(lambda: open_descriptors() <= before)


@pytest.mark.parametrize("way", ["close", "reset"])
def test_a_client_that_vanishes_while_the_application_works_leaves_nothing_behind(
    serve, open_descriptors, wait_until, way
):
    gate = Gate()
    server = serve(gate)
    before = open_descriptors()
    client = server.connect()
    client.send(client.render())
    assert gate.inside.wait(5)
    getattr(client, way)()
    gate.go.set()
    wait_until(lambda: open_descriptors() == before)
    assert server.ask().body == LARGE


def test_a_client_that_vanishes_between_requests_leaves_nothing_behind(serve, open_descriptors, wait_until):
    server = serve(app)
    before = open_descriptors()
    for way in ("close", "reset"):
        client = server.connect()
        assert client.ask().body == b"ok"
        getattr(client, way)()
    wait_until(lambda: open_descriptors() == before)
