"""System calls of a whole server, arbiter and worker, with everything on: counted by strace, whatever the machine does;
and the modules that its start imports.

`test_wire_costs` counts those of a single process, and calls of Python functions.
"""

import contextlib
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
from harness import ANY_PORT, Server, wait_until

import minicorn

REQUESTS = 200
CONNECTIONS = 8
# What the tracer's own arrival may add, and each second the ticks of two processes: a tenth, as in test_wire_costs
MORE = REQUESTS / 10
# The helper sleeps 10 ms at a time while requests come, which no request makes longer
SLEEP = "FUTEX_WAIT"
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""
# A worker has inherited all that its arbiter had imported at its fork
LISTING = """
import sys
def app(environ, start_response):
    body = " ".join(sys.modules).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""
OURS, OTHERS = 115, 95
# What was imported once, for a helper or two, and took a third of the time to the first reply
DEAR = {"argparse", "ast", "dataclasses", "email", "gettext", "html", "http", "inspect", "locale", "pathlib", "random"}
DEAR |= {"ipaddress", "shlex", "shutil", "ssl", "subprocess", "tempfile", "typing", "urllib", "wsgiref"}


def begin(start) -> tuple[Server, int]:
    start.write("main.py", APPLICATION)
    server = start("main:app", *ANY_PORT, "--max-keepalive-requests", "0")
    server.wait_ready()
    (worker,) = server.workers()
    return server, worker


def ask(client: socket.socket) -> None:
    client.sendall(ASK)
    answered(client)


def answered(client: socket.socket) -> None:
    reply = b""
    while not reply.endswith(b"\r\n\r\nok"):
        data = client.recv(4096)
        assert data, reply
        reply += data


def connect(server: Server) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), 15)
    ask(client)
    return client


def test_a_request_on_a_kept_connection_costs_the_whole_server_three_system_calls(start, traced):
    server, worker = begin(start)
    with connect(server) as client, traced(server.pid, worker) as trace:
        began = time.monotonic()
        for _ in range(REQUESTS):
            ask(client)
        seconds = time.monotonic() - began
    more = MORE * (1 + seconds)
    made = trace.count(without=SLEEP)
    assert made["sendto"] + made["sendmsg"] == REQUESTS, made
    assert made["recvfrom"] <= REQUESTS + more, made
    assert made["epoll_wait"] <= REQUESTS + more, made
    # The helper looks up a hundred times a second, and on a busy machine may be in the way when it does
    assert made.pop("futex", 0) <= more + 300 * seconds, made
    assert made.total() <= 3 * REQUESTS + more, made


def test_connections_that_are_ready_together_share_one_wait(start, traced):
    server, worker = begin(start)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(CONNECTIONS)]
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(worker).status() == psutil.STATUS_STOPPED, "the worker stops")
        for client in clients:
            client.sendall(ASK)
        with traced(worker) as trace:
            os.kill(worker, signal.SIGCONT)
            for client in clients:
                answered(client)
    assert any(re.search(rf"epoll_wait\b.*= {CONNECTIONS}$", line) for line in trace.lines), trace.lines
    made = trace.count(without=SLEEP)
    assert made["recvfrom"] == made["sendto"] + made["sendmsg"] == CONNECTIONS, trace.lines


def test_a_first_request_needs_few_modules(start) -> None:
    start.write("main.py", LISTING)
    # Without `site`, whose imports are those of what happens to be installed
    command = (sys.executable, "-S", "-m", "minicorn", "main:app", *ANY_PORT)
    server = start.command(*command, env={"PYTHONPATH": str(Path(minicorn.__file__).parents[1])})
    server.wait_ready()
    names = server.get("/").text.split()
    ours = [name for name in names if name.partition(".")[0] == "minicorn"]
    assert not DEAR & set(names)
    assert len(ours) <= 1.1 * OURS, ours
    assert len(names) - len(ours) <= 1.1 * OTHERS, sorted(set(names) - set(ours))
