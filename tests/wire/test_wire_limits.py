"""Limits against abuse: over one, the newest or the slowest client suffers, never the server."""

import select
import threading
import time

import pytest

from minicorn.serving.upload import MEMORY_MOST
from minicorn.system import scratch

BLOCK = b"x" * 2**16


def app(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [BLOCK] * 200 if environ["PATH_INFO"] == "/large" else [body or b"ok"]


def begin(client, length):
    client.send(client.render("/", f"Content-Length: {length}", method="POST"))


# Field lines


@pytest.mark.parametrize(("limit", "count", "status"), [(7, 6, 200), (7, 7, 431), (0, 3000, 200)])
def test_field_lines_are_counted(serve, limit, count, status):
    """Host is one as well."""
    assert serve(app, limit_request_fields=limit).ask("/", *["X-A: 1"] * count).status == status


def test_a_hundred_field_lines_pass_and_one_more_does_not(serve):
    server = serve(app)
    assert server.ask("/", *[f"X-{n}: 1" for n in range(99)]).status == 200
    assert server.ask("/", *[f"X-{n}: 1" for n in range(100)]).status == 431


@pytest.mark.parametrize(
    ("name", "status", "before", "behind"),
    [
        ("limit_request_line", 414, b"GET /", b" HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("limit_request_field_size", 431, b"GET / HTTP/1.1\r\nHost: h\r\nA: ", b"\r\n\r\n"),
    ],
)
def test_a_line_of_its_limit_passes_and_a_longer_one_does_not(serve, name, status, before, behind):
    """Whole, or without an end."""
    server = serve(app, **{name: 100})
    passes = before + b"x" * (100 - {414: 14, 431: 5}[status])
    for data, expected in [(passes + behind, 200), (passes + b"x" + behind, status), (passes + b"x" * 99, status)]:
        client = server.connect()
        client.send(data)
        assert client.reply().status == expected
        assert expected == 200 or client.rest() == b""


def test_without_limits_of_their_own_lines_may_be_as_long_as_the_head(serve):
    """What was taken always is: gunicorn's 4094 and 8190 are limits only to who sets them."""
    server = serve(app)
    assert server.ask("/" + "x" * 30000, "A: " + "x" * 30000).status == 200


# The rate of a body


def test_a_body_that_trickles_is_ended_however_regularly_it_comes(serve):
    server = serve(app, recv_timeout=0.5, min_body_rate=1000)
    client = server.connect()
    begin(client, 1000)
    client.sock.settimeout(0.05)
    began = time.monotonic()
    while time.monotonic() - began < 10:
        try:
            assert client.reply().status == 408
            break
        except TimeoutError:
            client.send(b"x")
    else:
        pytest.fail("it was waited for, on and on")
    assert client.rest() == b""


def test_a_body_at_the_least_rate_may_take_its_time(serve):
    server = serve(app, recv_timeout=0.5, min_body_rate=100)
    client = server.connect()
    begin(client, 2000)
    client.sock.settimeout(0.1)
    for _ in range(19):
        client.send(b"x" * 100)
        with pytest.raises(TimeoutError):  # no reply, and above all no 408
            client.read(1)
    client.send(b"x" * 100)
    client.sock.settimeout(5)
    assert client.reply().body == b"x" * 2000


# Connections


def test_at_the_limit_of_connections_the_oldest_idle_one_makes_room(serve):
    server = serve(app, worker_connections=5)
    clients = []
    for _ in range(12):
        clients.append(server.connect())
        assert clients[-1].ask().body == b"ok"
    assert [client.rest() for client in clients[:7]] == [b""] * 7
    assert all(client.ask().body == b"ok" for client in clients[7:])


@pytest.mark.parametrize("what", ["head", "body", "reply"])
def test_at_the_limit_of_connections_the_slowest_makes_room(serve, what):
    server = serve(app, worker_connections=3, recv_timeout=60, send_timeout=60)
    for _ in range(3):
        client = server.connect(receive_buffer=4096)
        if what == "head":
            client.send(b"GET / HT")
        elif what == "body":
            begin(client, 10)
        else:
            client.send(client.render("/large"))
            client.until(b"\r\n\r\n")
    good = server.connect()
    good.sock.settimeout(15)
    assert good.ask().body == b"ok"


def test_who_is_not_slow_does_not_make_room(serve):
    server = serve(app, worker_connections=3)
    working = [server.connect() for _ in range(3)]
    for client in working:
        begin(client, 3)
    waiting = server.connect()
    waiting.send(waiting.render())
    for client in working:
        client.send(b"abc")
    assert [client.reply().body for client in working] == [b"abc"] * 3
    assert waiting.reply().body == b"ok"


# Memory


def test_over_the_limit_of_memory_the_slowest_senders_are_told_503(serve, log, wait_until):
    server = serve(app, max_buffered_size=310_000, recv_timeout=60)
    clients = [server.connect() for _ in range(8)]
    for client in clients:
        begin(client, 60_001)
        client.send(b"x" * 60_000)
        assert server.ask().body == b"ok"

    def dropped():
        return sum("too much waits" in text for text in log)

    # Whoever is dropped before all of his has come makes room for less
    wait_until(lambda: dropped() >= 3 and server.server._loop._holdings.total == 60_000 * (8 - dropped()))
    told, _, _ = select.select([client.sock for client in clients], [], [], 5)
    assert len(told) == dropped() <= 4
    for client in clients:
        if client.sock in told:
            reply = client.reply()
            assert (reply.status, reply["Retry-After"], reply["Connection"]) == (503, "1", "close")
        else:
            client.send(b"x")
            assert client.reply().body == b"x" * 60_001


def test_over_the_limit_of_memory_large_bodies_go_to_files(serve, log):
    """A crowd that uploads slowly is no abuse."""
    server = serve(app, max_buffered_size=310_000, recv_timeout=60)
    clients = [server.connect() for _ in range(8)]
    for client in clients:
        begin(client, 200_001)
        client.send(b"x" * 200_000)
        assert server.ask().body == b"ok"
    for client in clients:
        client.send(b"y")
        assert client.reply().body == b"x" * 200_000 + b"y"
    assert not [text for text in log if "too much waits" in text]


def test_a_large_body_that_would_take_the_last_of_the_disk_is_told_503(serve, monkeypatch):
    monkeypatch.setattr(scratch, "LEFT_PART", 1)
    monkeypatch.setattr(scratch, "LEFT_MOST", 2**62)
    server = serve(app, max_body_size=2**22)
    size = MEMORY_MOST + 1
    assert server.ask("/", method="POST", body=b"x" * size).status == 503
    assert server.ask("/", method="POST", body=b"x" * (size - 1)).status == 200


@pytest.mark.parametrize("patience", [0.3, 60], ids=["it is refused", "it leaves"])
def test_a_large_body_that_never_comes_whole_leaves_no_file(serve, open_descriptors, wait_until, patience):
    server = serve(app, recv_timeout=patience, max_body_size=2**22)
    before = open_descriptors()
    client = server.connect()
    begin(client, 2**21)
    client.send(b"x" * (MEMORY_MOST + 1))
    wait_until(lambda: open_descriptors() == before + 3)  # both ends, and the file
    if patience < 1:
        assert client.reply().status == 408
        assert open_descriptors() == before + 2
    else:
        client.close()
        wait_until(lambda: open_descriptors() == before)


def test_over_the_limit_of_memory_the_slowest_readers_are_cut_off(serve, log, wait_until):
    server = serve(app, max_buffered_size=3 * 2**20, send_timeout=60)
    for _ in range(8):
        client = server.connect(receive_buffer=4096)
        client.send(client.render("/large"))
        client.until(b"\r\n\r\n")
    wait_until(lambda: sum("too much waits for clients" in text for text in log) >= 4)
    assert server.ask().body == b"ok"


def test_a_body_that_comes_after_its_head_counts(serve, wait_until):
    server = serve(app)
    client = server.connect()
    begin(client, 70_000)
    assert server.ask().body == b"ok"  # the head has been weighed by now, alone
    client.send(b"x" * 60_000)
    wait_until(lambda: server.server._loop._holdings.total == 60_000)


def test_unfinished_heads_count(serve):
    server = serve(app, max_buffered_size=100_000, recv_timeout=60)
    clients = [server.connect() for _ in range(4)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\nX-A: " + b"x" * 40_000)
        assert server.ask().body == b"ok"
    assert clients[0].reply().status == 503
    clients[-1].send(b"\r\n\r\n")
    assert clients[-1].reply().status == 200


def test_what_was_held_is_given_back(serve):
    server = serve(app, max_buffered_size=200_000)
    clients = [server.connect() for _ in range(2)]
    for _ in range(10):
        for client in clients:
            begin(client, 60_000)
            client.send(b"x" * 30_000)
        for client in clients:
            client.send(b"x" * 30_000)
            assert client.reply().body == b"x" * 60_000
    assert server.server._loop._holdings.total == 0


# Clients that have gone


class Gate:
    """An application that waits in its first request, and keeps the paths it was asked for."""

    def __init__(self):
        self.seen, self.entered, self.go_on = [], threading.Event(), threading.Event()

    def __call__(self, environ, start_response):
        self.seen.append(environ["PATH_INFO"])
        self.entered.set()
        assert self.go_on.wait(10)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]


@pytest.mark.parametrize("way", ["close", "reset"])
def test_who_has_gone_while_it_waited_for_its_turn_never_reaches_the_application(serve, monkeypatch, way):
    monkeypatch.setattr("minicorn.server.STALE", 0.0)
    gate = Gate()
    server = serve(gate)
    first, gone, stays = server.connect(), server.connect(), server.connect()
    first.send(first.render("/first"))
    assert gate.entered.wait(5)
    gone.send(gone.render("/gone"))
    stays.send(stays.render("/stays"))
    getattr(gone, way)()
    gate.go_on.set()
    assert first.reply().body == stays.reply().body == b"ok"
    assert gate.seen == ["/first", "/stays"]


def test_who_is_served_at_once_is_not_looked_at(serve):
    """Half-closed: it cannot be told from one that has gone, and it is owed its reply."""
    client = serve(app).connect()
    client.send(client.render())
    client.half_close()
    assert client.reply().body == b"ok"
