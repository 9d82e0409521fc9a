"""The loop waits for clients so that nobody else has to: crowds, back-pressure, descriptors."""

import errno
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest

from minicorn.figures.heartbeat import private_page
from minicorn.serving.deadlines import TICK
from minicorn.system.listeners import Listener

BLOCK = os.urandom(65536)
MIB = 2**20


class Endless:
    """A body of so many blocks, which counts what was taken of it."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.taken = 0
        self.closed = threading.Event()

    def __iter__(self):
        while self.taken < self.blocks:
            self.taken += 1
            yield BLOCK

    def close(self):
        self.closed.set()


def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [BLOCK * 80] if environ["PATH_INFO"] == "/large" else [b"ok"]


# Crowds


def test_a_crowd_of_slow_clients_does_not_hold_up_a_good_one(serve):
    server = serve(app, recv_timeout=30, keep_alive=30, send_timeout=30)
    idle = [server.connect() for _ in range(50)]
    for client in idle:
        assert client.ask().body == b"ok"
    deaf = [server.connect(receive_buffer=4096) for _ in range(20)]
    for client in deaf:
        client.send(client.render("/large"))
    dribblers = [server.connect() for _ in range(50)]
    good = server.connect()
    for byte in b"GET / HTTP/1.1\r\nX-Slow: ":
        for client in dribblers:
            client.send(bytes([byte]))
        # Within the five seconds that a client waits here: the others may take thirty
        assert good.ask().body == b"ok"
        assert server.ask(method="POST", body=b"x" * 1000).body == b"ok"
    # And none of them was forgotten
    for client in dribblers:
        client.send(b"x\r\nHost: test\r\n\r\n")
    for client in dribblers:
        assert client.reply().body == b"ok"
    for client in idle:
        assert client.ask().body == b"ok"
    for client in deaf:
        assert client.reply().body == BLOCK * 80


def test_many_that_come_at_once_are_all_answered(serve):
    server = serve(app)
    clients = [server.connect() for _ in range(200)]
    for client in clients:
        client.send(client.render())
    assert all(client.reply().body == b"ok" for client in clients)


def test_those_who_vanish_in_the_accept_queue_are_passed_over(serve):
    inside, go = threading.Event(), threading.Event()

    def waiting(environ, start_response):
        inside.set()
        assert go.wait(5)
        return app(environ, start_response)

    server = serve(waiting)
    first = server.connect()
    first.send(first.render())
    assert inside.wait(5)
    for number in range(20):
        client = server.connect()
        client.send(client.render() if number % 2 else b"")
        client.reset()
    last = server.connect()
    last.send(last.render())
    go.set()
    assert first.reply().body == b"ok"
    assert last.reply().body == b"ok"


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO, errno.EMFILE])
def test_an_accept_that_fails_is_tried_again(serve, monkeypatch, code):
    """accept(2): a client may have gone before, or the system have no room; nobody else has to suffer for that."""
    failed = []
    accept = Listener.accept

    def fail_once(listener):
        if not failed:
            failed.append(code)
            raise OSError(code, os.strerror(code))
        return accept(listener)

    monkeypatch.setattr(Listener, "accept", fail_once)
    assert serve(app).ask().body == b"ok"
    assert failed


def test_where_the_system_has_no_descriptor_accept_is_tried_at_each_tick(serve, monkeypatch):
    """Who waits is readable all the time: to try at once again would be to spin."""
    tried = []
    accept = Listener.accept

    def fail_twice(listener):
        tried.append(time.monotonic())
        if len(tried) <= 2:
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        return accept(listener)

    monkeypatch.setattr(Listener, "accept", fail_twice)
    assert serve(app).ask().body == b"ok"
    assert tried[2] - tried[1] > TICK / 2


# Back-pressure


def test_who_does_not_read_an_endless_reply_is_dropped_and_it_is_not_piled_up(serve):
    bodies = []

    def endless(environ, start_response):
        if environ["PATH_INFO"] != "/endless":
            return app(environ, start_response)
        start_response("200 OK", [])
        bodies.append(Endless(64 * MIB // len(BLOCK)))
        return bodies[-1]

    server = serve(endless, send_timeout=0.5)
    client = server.connect(receive_buffer=4096)
    client.send(client.render("/endless"))
    assert server.ask().body == b"ok"  # the worker waits for send_timeout, no longer
    (body,) = bodies
    assert body.closed.is_set()
    assert 16 * MIB <= body.taken * len(BLOCK) <= 28 * MIB  # the outbox, and what the sockets hold
    with pytest.raises((EOFError, ConnectionResetError)):
        client.reply()


def test_who_was_given_up_is_not_waited_for_again(serve):
    """An application may catch what `write` raises, and go on; its client's reply is cut all the same."""
    raised = []
    waits = []

    def stubborn(environ, start_response):
        if environ["PATH_INFO"] == "/":
            return app(environ, start_response)
        write = start_response("200 OK", [])
        for block in (BLOCK * 400, b"second", b"third", b"fourth", b"fifth", b"sixth"):
            began = time.monotonic()
            try:
                write(block)
            except OSError as error:
                raised.append(error)
            waits.append(time.monotonic() - began)
        return [b"last"]

    server = serve(stubborn, send_timeout=0.5)
    client = server.connect(receive_buffer=65536)
    client.send(client.render("/stubborn"))
    assert server.ask().body == b"ok"
    assert len(raised) == 6
    assert sum(waits[1:]) < waits[0]
    with pytest.raises((EOFError, ConnectionResetError)):
        client.reply()


def spooled():
    """Bytes on disk in the temporary files that this process has open."""
    sizes = {}
    directory = os.path.realpath(tempfile.gettempdir())
    for fd in Path("/proc/self/fd").iterdir():
        try:
            name, status = os.readlink(fd), os.stat(fd)
        except FileNotFoundError:
            continue
        if name.startswith(f"{directory}/") and name.endswith(" (deleted)"):
            sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def test_a_slow_reader_gets_an_endless_reply_whole_and_its_file_stays_small(serve, wait_until):
    count = 48 * MIB // len(BLOCK)

    def endless(environ, start_response):
        start_response("200 OK", [("Content-Length", str(count * len(BLOCK)))])
        return Endless(count)

    before = spooled()
    client = serve(endless).connect(receive_buffer=65536)
    client.send(client.render())
    client.until(b"\r\n\r\n")
    wait_until(lambda: spooled() - before > 8 * MIB)
    most = 0
    for _ in range(count // 4):
        assert client.read(4 * len(BLOCK)) == BLOCK * 4
        most = max(most, spooled() - before)
    assert most <= 24 * MIB
    wait_until(lambda: spooled() == before)


def test_one_block_of_any_size_waits_for_its_reader(serve):
    def huge(environ, start_response):
        start_response("200 OK", [])
        return [BLOCK * 480]  # 30 MiB: twice what may wait

    client = serve(huge).connect(receive_buffer=65536)
    assert client.ask().body == BLOCK * 480


def test_the_time_spent_waiting_for_a_reader_is_not_the_application_s(serve):
    deadlines = []

    def endless(environ, start_response):
        start_response("200 OK", [])
        for _ in range(24 * MIB // len(BLOCK)):
            yield BLOCK
        deadlines.append(page.deadline - time.monotonic())

    page = private_page()
    client = serve(endless, page=page, timeout=10).connect(receive_buffer=65536)
    client.send(client.render())
    client.until(b"\r\n\r\n")
    threading.Event().wait(1.5)  # the client's own pace: the application waits meanwhile
    while not deadlines:
        client.read(MIB)
    assert 9 < deadlines[0] <= 10.1


# Descriptors


def test_connections_of_all_kinds_leave_no_descriptor_behind(serve, open_descriptors, wait_until):
    server = serve(app, max_body_size=MIB)
    assert server.ask().body == b"ok"
    before = open_descriptors()
    for _ in range(20):
        assert server.ask().body == b"ok"
        assert server.ask("/", "Connection: close").body == b"ok"
        assert server.ask(version="HTTP/1.0").body == b"ok"
        assert server.ask(method="HEAD").status == 200
        assert server.ask(method="POST", body=BLOCK * 2).body == b"ok"
        assert server.ask("/", "Content-Length: 9999999", method="POST").status == 413
        assert server.ask("/large").body == BLOCK * 80
        for data in (b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n\r\n" + BLOCK * 2):
            client = server.connect()
            client.send(data)
            client.reset()
        client = server.connect(receive_buffer=4096)
        client.send(client.render("/large"))
        client.until(b"\r\n\r\n")
        client.close()
    wait_until(lambda: open_descriptors() <= before)


LIMITED = """
import logging, os, resource, sys, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
from minicorn.server import Server
from minicorn.config.settings import Settings

def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    if environ["PATH_INFO"] == "/eat":
        eaten = []
        try:
            while True:
                eaten.append(os.dup(0))
        except OSError:
            threading.Timer(2, lambda: [os.close(fd) for fd in eaten]).start()
    return [b"ok"]

Server(app, "127.0.0.1", 0, settings=Settings(recv_timeout=RECV, keep_alive=60, send_timeout=5)).serve()
"""
CAPACITY = 64


def test_at_the_descriptor_limit_the_oldest_idle_connection_makes_room(spawn):
    server = spawn(LIMITED.replace("RECV", "60"))
    clients = []
    for _ in range(CAPACITY + 100):
        clients.append(server.connect())
        assert clients[-1].ask().body == b"ok"
    for client in clients[:100]:
        assert client.rest() == b""
    for client in clients[101:]:
        assert client.ask().body == b"ok"


def test_at_the_descriptor_limit_without_an_idle_connection_the_next_waits_and_the_server_sleeps(spawn):
    server = spawn(LIMITED.replace("RECV", "1.5"))
    for _ in range(CAPACITY):
        server.connect()
    last = server.connect()
    last.send(last.render())
    assert server.cpu_over_a_second() < 0.4
    assert last.reply().body == b"ok"


def test_without_descriptors_the_server_sleeps_until_there_are_some(spawn):
    server = spawn(LIMITED.replace("RECV", "60"))
    eater = server.connect()
    eater.send(eater.render("/eat") + b"G")  # so it is not idle: nobody is there to make room
    assert eater.reply().body == b"ok"
    waiting = [server.connect() for _ in range(5)]
    for client in waiting:
        client.send(client.render())
    assert server.cpu_over_a_second() < 0.4
    waiting[0].sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        waiting[0].read(1)
    waiting[0].sock.settimeout(5)
    assert all(client.reply().body == b"ok" for client in waiting)


def test_an_idle_server_sleeps(spawn):
    server = spawn(LIMITED.replace("RECV", "60"))
    clients = [server.connect() for _ in range(20)]
    assert all(client.ask().body == b"ok" for client in clients)
    assert server.cpu_over_a_second() < 0.2


def test_a_reply_leaves_without_waiting_for_an_acknowledgement(serve):
    """Nagle's algorithm with delayed acknowledgements costs 40 ms a reply of two packets."""

    def two_blocks(environ, start_response):
        write = start_response("200 OK", [])
        write(b"first")
        return [b"second"]

    client = serve(two_blocks).connect()
    client.ask()
    began = time.monotonic()
    for _ in range(50):
        client.ask()
    assert time.monotonic() - began < 1
