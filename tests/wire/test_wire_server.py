"""The Python API: Server, load_app, serve and run; how a server ends, and what it finishes first."""

import os
import signal
import socket
import threading
import time

import pytest

import minicorn
from minicorn.errors import ConfigError
from minicorn.server import Server, load_app

LARGE = os.urandom(2**20) * 8


class Gate:
    """An application that waits at "/wait" until it is let go, and answers anything else at once."""

    def __init__(self):
        self.inside = threading.Event()
        self.go = threading.Event()
        self.seen = []

    def __call__(self, environ, start_response):
        self.seen.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == "/wait":
            self.inside.set()
            assert self.go.wait(5)
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [LARGE] if environ["PATH_INFO"] == "/large" else [body or b"ok"]


@pytest.fixture
def gate():
    return Gate()


def waiting(server, gate):
    """A client whose request is in hand."""
    client = server.connect()
    client.send(client.render("/wait"))
    assert gate.inside.wait(5)
    return client


# In this process


def test_the_public_names():
    assert callable(minicorn.serve) and callable(minicorn.run)
    assert load_app("minicorn.demo:app") is load_app("minicorn.demo")


def test_port_0_becomes_the_port_that_was_found(serve, gate):
    server = serve(gate)
    assert server.server.port > 0
    assert server.server.host == "127.0.0.1"


def test_signal_exit_ends_serve_from_another_thread(serve, gate):
    server = serve(gate)
    assert server.ask().body == b"ok"
    began = time.monotonic()
    server.server.signal_exit()
    server.join()
    assert time.monotonic() - began < 0.9  # it was woken, not found out at the next tick
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_signal_exit_before_serve_is_kept(gate):
    server = Server(gate, "127.0.0.1", 0)
    server.signal_exit()
    server.serve()
    assert server.port > 0


def test_signal_exit_may_be_said_any_number_of_times(gate):
    server = Server(gate, "127.0.0.1", 0)
    for _ in range(70_000):  # more than a pipe holds
        server.signal_exit()
    server.serve()


def test_signal_exit_behind_the_end_touches_nothing(gate):
    server = Server(gate, "127.0.0.1", 0)
    server.signal_exit()
    server.serve()
    # They get the numbers that have become free
    ends = [end for _ in range(10) for end in socket.socketpair()]
    server.signal_exit()
    for end in ends:
        end.setblocking(False)
        with pytest.raises(BlockingIOError):
            end.recv(1)
    for end in ends:
        end.close()


def test_the_application_may_end_its_server(serve):
    def app(environ, start_response):
        server.server.signal_exit()
        start_response("200 OK", [])
        return [b"bye"]

    server = serve(app)
    assert server.ask().body == b"bye"
    server.join()


def test_an_address_in_use_is_a_config_error_of_one_line(serve, gate, open_descriptors):
    taken = serve(gate).server.port
    before = open_descriptors()
    with pytest.raises(ConfigError) as caught:
        Server(gate, "127.0.0.1", taken).serve()
    assert str(taken) in str(caught.value) and "\n" not in str(caught.value)
    assert open_descriptors() == before


def test_a_server_that_has_ended_leaves_no_descriptor(serve, gate, open_descriptors):
    before = open_descriptors()
    for _ in range(3):
        server = serve(gate)
        client = server.connect()
        assert client.ask().body == b"ok"
        server.stop()
    assert open_descriptors() == before


def test_two_servers_serve_beside_each_other(serve):
    def named(name):
        def app(environ, start_response):
            start_response("200 OK", [])
            return [name]

        return app

    first, second = serve(named(b"first")), serve(named(b"second"))
    assert (first.ask().body, second.ask().body) == (b"first", b"second")
    first.stop()
    assert second.ask().body == b"second"


# The graceful end


def test_a_request_in_hand_is_finished_and_told_that_it_is_the_last(serve, gate):
    server = serve(gate)
    client = waiting(server, gate)
    server.server.signal_exit()
    gate.go.set()
    reply = client.reply()
    assert (reply.body, reply["Connection"]) == (b"ok", "close")
    client.close()
    server.join()


def test_a_request_that_is_answered_while_ending_says_close(serve, gate):
    server = serve(gate)
    first = waiting(server, gate)
    second = server.connect()
    second.send(second.render("/second"))
    server.server.signal_exit()
    gate.go.set()
    assert first.reply().body == b"ok"
    reply = second.reply()
    assert (reply.body, reply["Connection"]) == (b"ok", "close")
    assert second.rest() == b""
    server.close_clients()
    server.join()


def test_the_accept_queue_is_served_at_the_end(serve, gate):
    server = serve(gate)
    first = waiting(server, gate)
    queued = [server.connect() for _ in range(20)]
    for number, client in enumerate(queued):
        client.send(client.render(f"/{number}"))
    server.server.signal_exit()
    gate.go.set()
    assert first.reply().body == b"ok"
    for client in queued:
        reply = client.reply()
        assert (reply.body, reply["Connection"]) == (b"ok", "close")
    server.close_clients()
    server.join()


def test_a_queued_client_that_has_not_spoken_yet_is_waited_for(serve, gate):
    server = serve(gate)
    first = waiting(server, gate)
    queued = server.connect()
    server.server.signal_exit()
    gate.go.set()
    assert first.reply().body == b"ok"
    queued.send(queued.render("/late"))
    assert queued.reply().body == b"ok"
    server.close_clients()
    server.join()


def test_a_request_that_has_arrived_on_an_idle_connection_is_answered(serve, gate):
    server = serve(gate)
    idle = server.connect()
    assert idle.ask().body == b"ok"
    first = waiting(server, gate)
    idle.send(idle.render("/again"))
    server.server.signal_exit()
    gate.go.set()
    assert first.reply().body == b"ok"
    assert idle.reply().body == b"ok"


def test_with_reload_a_request_is_answered_where_no_newer_code_comes_any_more(serve, gate):
    """The whole server ends while the worker retires: whom it kept for its successor it answers itself."""
    server = serve(gate, reload=True)
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\n")
    ended = threading.Event()

    def end():
        server.server.seal()
        server.server.signal_exit(drain=False)
        ended.set()

    server.server.soon(end)
    assert ended.wait(5)
    client.send(b"Host: test\r\n\r\n")
    assert client.reply().body == b"ok"
    server.join()


def test_a_body_that_is_on_its_way_is_awaited(serve, gate):
    server = serve(gate)
    idle, client = server.connect(), server.connect()
    assert idle.ask().body == b"ok"
    client.send(client.render("/", "Content-Length: 10", "Expect: 100-continue", method="POST"))
    assert client.reply().status == 100
    client.send(b"01234")
    server.server.signal_exit()
    assert idle.rest() == b""  # it is ending
    client.send(b"56789")
    reply = client.reply()
    assert (reply.body, reply["Connection"]) == (b"0123456789", "close")
    client.close()
    server.join()


def test_idle_connections_are_closed_at_once(serve, gate):
    server = serve(gate)
    clients = [server.connect() for _ in range(5)]
    for client in clients:
        assert client.ask().body == b"ok"
    began = time.monotonic()
    server.server.signal_exit()
    assert all(client.rest() == b"" for client in clients)
    server.join()
    assert time.monotonic() - began < 0.9


def test_a_client_that_never_speaks_does_not_delay_the_end_for_long(serve, gate):
    server = serve(gate, recv_timeout=30, graceful_timeout=30)
    client = server.connect()
    assert server.ask().body == b"ok"
    server.server.signal_exit()
    server.join(4)
    assert client.rest() == b""


def test_a_slow_reader_gets_its_reply_whole(serve, gate):
    server = serve(gate)
    idle, slow = server.connect(), server.connect(receive_buffer=65536)
    assert idle.ask().body == b"ok"
    slow.send(slow.render("/large"))
    slow.until(b"\r\n\r\n")
    server.server.signal_exit()
    assert idle.rest() == b""
    assert slow.read(len(LARGE)) == LARGE
    assert slow.rest() == b""
    server.join()


def test_who_is_not_done_at_graceful_timeout_is_dropped(serve, gate):
    server = serve(gate, graceful_timeout=0.5, send_timeout=30)
    deaf = server.connect(receive_buffer=4096)
    deaf.send(deaf.render("/large"))
    deaf.until(b"\r\n\r\n")
    server.server.signal_exit()
    server.join(3)
    with pytest.raises((EOFError, ConnectionResetError)):
        deaf.read(len(LARGE))


def test_who_comes_while_the_server_ends_is_served_or_refused_but_never_left_to_a_reset(serve, gate):
    server = serve(gate)
    idle, slow = server.connect(), server.connect(receive_buffer=4096)
    assert idle.ask().body == b"ok"
    slow.send(slow.render("/large"))
    slow.until(b"\r\n\r\n")
    server.server.signal_exit()
    assert idle.rest() == b""  # it is ending
    # Which it cannot before the slow one has its reply
    try:
        late = server.connect()
        late.sock.settimeout(2)
    except ConnectionRefusedError:
        return
    assert late.ask().body == b"ok"


# In a process of its own

SCRIPT = """
import logging, signal, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
import minicorn
from minicorn.server import Server

def app(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        print("inside", flush=True)
        sys.stdin.readline()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x" * 8_000_000 if environ["PATH_INFO"] == "/large" else b"ok"]

START
print("ended", flush=True)
"""
HANDLER = """
server = Server(app, "127.0.0.1", 0)
signal.signal(signal.SIGTERM, lambda signum, frame: server.signal_exit())
signal.signal(signal.SIGINT, lambda signum, frame: server.signal_exit())
server.serve()
"""
RUN = "minicorn.run(app, port=0)"
SERVE = "minicorn.serve('minicorn.demo:app', port=0)"


@pytest.mark.parametrize("start", [HANDLER, RUN], ids=["Server", "run"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully(spawn, start, signum):
    server = spawn(SCRIPT.replace("START", start))
    assert server.ask().body == b"ok"
    in_hand = server.connect()
    in_hand.send(in_hand.render("/wait"))
    server.await_line("inside")
    queued = server.connect()
    queued.send(queued.render())
    for _ in range(3):
        server.process.send_signal(signum)
    server.say("go")
    assert in_hand.reply().body == b"ok"
    reply = queued.reply()
    assert (reply.body, reply["Connection"]) == (b"ok", "close")
    server.close_clients()
    assert server.process.wait(5) == 0
    server.await_line("ended")


@pytest.mark.parametrize("start", [HANDLER, RUN, SERVE], ids=["Server", "run", "serve"])
def test_a_signal_ends_an_idle_server_at_once(spawn, start):
    server = spawn(SCRIPT.replace("START", start))
    idle = server.connect()
    assert idle.ask().status == 200
    server.process.send_signal(signal.SIGTERM)
    assert idle.rest() == b""
    assert server.process.wait(5) == 0


@pytest.mark.parametrize("start", [HANDLER, RUN], ids=["Server", "run"])
def test_a_server_that_waits_for_its_last_client_sleeps(spawn, start):
    server = spawn(SCRIPT.replace("START", start))
    slow = server.connect(receive_buffer=4096)
    slow.send(slow.render("/large", "Connection: close"))
    slow.until(b"\r\n\r\n")
    server.process.send_signal(signal.SIGTERM)
    assert server.cpu_over_a_second() < 0.4
    assert slow.read(8_000_000) == b"x" * 8_000_000
    slow.close()
    assert server.process.wait(5) == 0


def test_run_gives_the_signals_back(spawn):
    server = spawn(SCRIPT.replace("START", RUN + "\nprint('left', signal.getsignal(signal.SIGTERM).name, flush=True)"))
    server.process.send_signal(signal.SIGTERM)
    assert server.await_line("left (.*)") == "SIG_DFL"
    assert server.process.wait(5) == 0


def test_run_serves_in_a_thread_that_takes_no_signals(spawn):
    threaded = (
        "import threading; threading.Thread(target=minicorn.run, args=(app,), kwargs={'port': 0}, daemon=True).start()"
    )
    server = spawn(SCRIPT.replace("START", threaded + "\nsys.stdin.readline()"))
    assert server.ask().body == b"ok"
    assert server.process.poll() is None


def test_the_host_may_be_a_name(gate):
    server = Server(gate, "localhost", 0)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        deadline = time.monotonic() + 5
        while not server.port:
            assert time.monotonic() < deadline and thread.is_alive()
        with socket.create_connection(("localhost", server.port), 5) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
    finally:
        server.signal_exit()
        thread.join(5)


def test_a_fork_after_the_servers_end_wakes_no_helper(serve, gate):
    server = serve(gate)
    assert server.ask().body
    server.stop()
    before = threading.active_count()
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    assert threading.active_count() <= before
