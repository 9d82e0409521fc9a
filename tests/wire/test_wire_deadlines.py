"""Deadlines: who is too slow is told so or dropped, and who makes progress is not."""

import os
import threading
import time

import pytest

from minicorn.config.address import Unix
from minicorn.serving import outbox
from minicorn.serving.deadlines import TICK
from minicorn.system import listeners

LARGE = os.urandom(2**20) * 8  # beyond what the sockets' buffers hold


def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [LARGE] if environ["PATH_INFO"] == "/large" else [b"ok"]


def by_generator(environ, start_response):
    start_response("200 OK", [])
    return iter([LARGE])


@pytest.fixture
def server(serve):
    return serve(app, recv_timeout=0.3, keep_alive=0.3, send_timeout=0.3)


SLOW = {
    "half a request line": b"GET / HT",
    "half a head": b"GET / HTTP/1.1\r\nHost: test\r\n",
    "no byte of a body": b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n",
    "half a body": b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345",
    "half a chunk": b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n12345",
    "no last chunk": b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    "no end of the trailers": b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n",
}


def test_who_begins_a_request_and_does_not_end_it_is_told_408(server):
    fresh, used, piped = {}, {}, {}
    for name, data in SLOW.items():
        fresh[name] = server.connect()
        fresh[name].send(data)
        used[name] = server.connect()
        assert used[name].ask().body == b"ok"
        used[name].send(data)
        piped[name] = server.connect()
        piped[name].send(piped[name].render() + data)
    for client in piped.values():
        assert client.reply().body == b"ok"
    for clients in (fresh, used, piped):
        for name, client in clients.items():
            reply = client.reply()
            assert (reply.status, reply["Connection"]) == (408, "close"), name
            assert client.rest() == b"", name


def test_who_says_nothing_is_closed_without_a_word(server):
    fresh, used = server.connect(), server.connect()
    assert used.ask().body == b"ok"
    empty = server.connect()  # nor does an empty line begin a request (RFC 9112 2.2): old clients end a body with one
    empty.send(empty.render() + b"\r\n")
    assert empty.reply().body == b"ok"
    assert fresh.rest() == b""
    assert used.rest() == b""
    assert empty.rest() == b""


def test_idle_time_is_keep_alive_and_not_the_patience_for_a_head(serve):
    server = serve(app, recv_timeout=0.2, keep_alive=30)
    client = server.connect()
    client.ask()
    silent = server.connect()
    assert silent.rest() == b""  # by now the deadlines have been looked at
    assert client.ask().body == b"ok"


def test_a_head_has_one_deadline_however_its_bytes_trickle(server):
    client = server.connect()
    head = client.render("/", "X-Slow: " + "x" * 100)
    began = time.monotonic()
    client.sock.settimeout(0.05)
    for position in range(len(head)):
        client.send(head[position : position + 1])
        try:
            assert client.read(12) == b"HTTP/1.1 408"
            break
        except TimeoutError:
            continue
    else:
        pytest.fail("the whole head was waited for")
    assert 0.3 <= time.monotonic() - began < 3


def test_a_pipelined_request_that_waits_for_its_turn_is_not_late(serve):
    gate, busy = threading.Event(), threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/gate":
            busy.set()
            gate.wait(5)
        elif environ["PATH_INFO"] == "/long":
            time.sleep(2 * TICK)  # so that deadlines are looked at
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    server = serve(app, recv_timeout=0.1, handoff_after=0)
    first, piped, other = server.connect(), server.connect(), server.connect()
    first.send(first.render("/gate"))
    assert busy.wait(5)
    piped.send(piped.render("/1") + piped.render("/2"))
    other.send(other.render("/long"))  # taken between the two
    gate.set()
    assert [piped.reply().body, other.reply().body, piped.reply().body] == [b"/1", b"/long", b"/2"]


def test_a_body_has_a_deadline_for_each_wait_and_may_take_longer_in_all(serve):
    server = serve(app, recv_timeout=0.7, min_body_rate=0)
    by_length, by_chunks = server.connect(), server.connect()
    by_length.send(by_length.render("/", "Content-Length: 7", method="POST"))
    by_chunks.send(by_chunks.render("/", "Transfer-Encoding: chunked", method="POST"))
    for _ in range(7):
        by_length.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):  # no reply, and above all no 408
            by_length.read(1)
        by_length.send(b"x")
        by_chunks.send(b"1\r\nx\r\n")
    by_chunks.send(b"0\r\n\r\n")
    by_length.sock.settimeout(5)
    assert by_length.reply().body == b"ok"
    assert by_chunks.reply().body == b"ok"


def test_who_does_not_read_is_dropped(server, open_descriptors, wait_until):
    before = open_descriptors()
    clients = [server.connect(receive_buffer=65536) for _ in range(5)]
    for client in clients:
        client.send(client.render("/large"))
        client.until(b"\r\n\r\n")
    # What is left then are the clients' own sockets: neither the server's nor the files of their replies
    wait_until(lambda: open_descriptors() <= before + len(clients))
    for client in clients:
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read(len(LARGE))


def test_who_reads_slowly_gets_everything(serve):
    client = serve(app, send_timeout=0.5).connect(receive_buffer=65536)
    client.send(client.render("/large"))
    client.until(b"\r\n\r\n")
    pause = threading.Event()
    got = []
    for _ in range(32):
        got.append(client.read(len(LARGE) // 32))
        pause.wait(0.06)  # 2 s in all: longer than send_timeout and the tick in which it is noticed
    assert b"".join(got) == LARGE
    assert client.ask().body == b"ok"


@pytest.mark.parametrize("answer", [app, by_generator], ids=["all is handed over", "the application waits"])
def test_who_reads_steadily_is_not_dropped_though_the_system_has_no_room_for_more(serve, tmp_path, monkeypatch, answer):
    """Of a Unix socket's buffer three quarters must be free, which takes this client 2.5 s."""
    monkeypatch.setattr(outbox, "FULL", 2**20)
    server = serve(answer, bound=listeners.bind(Unix(str(tmp_path / "socket"))), send_timeout=0.7)
    client = server.connect()
    client.send(client.render("/large", version="HTTP/1.0"))
    pause = threading.Event()
    got = []
    for _ in range(60):
        got.append(client.sock.recv(3000))
        pause.wait(0.05)
    reply = b"".join(got) + client.rest()
    assert reply.partition(b"\r\n\r\n")[2] == LARGE


def test_a_reply_that_only_the_connection_ends_is_reset_when_its_client_is_dropped(serve, open_descriptors, wait_until):
    server = serve(by_generator, send_timeout=0.3)
    before = open_descriptors()
    client = server.connect(receive_buffer=65536)
    client.send(client.render(version="HTTP/1.0"))
    client.until(b"\r\n\r\n")
    wait_until(lambda: open_descriptors() == before + 1)
    with pytest.raises(ConnectionResetError):
        client.rest()
