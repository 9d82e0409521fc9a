"""What one request costs in counted work, which no noise can move: calls in Python, and system calls."""

import threading
import time
from collections import Counter

import psutil

REQUESTS = 200
CROWD = 64
BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Upgrade-Insecure-Requests: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
)
# Measured, and a tenth more: what adds to it must be worth it, and then says so here
PYTHON_CALLS = 31 * 1.1
SCRIPT = """
import minicorn

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]

minicorn.run(app, port=0, max_keepalive_requests=0, handoff_after=0)
"""


def ask(client, number: int) -> None:
    cookie = f"Cookie: session={number:032x}"
    assert client.ask(f"/items/{number}?page=7", *BROWSER, cookie).body == b"ok"


def test_calls_of_python_functions_in_a_request_do_not_grow(serve):
    calls: Counter[str] = Counter()

    def count(frame, event, argument):
        if event == "call":
            calls[frame.f_code.co_qualname] += 1

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    threading.setprofile(count)
    try:
        client = serve(app, max_keepalive_requests=0, handoff_after=0).connect()
    finally:
        threading.setprofile(None)
    for number in range(10):
        ask(client, number)
    calls.clear()
    for number in range(REQUESTS):
        ask(client, number)
    each = calls.total() / REQUESTS
    often = ", ".join(f"{name} {count / REQUESTS:.1f}" for name, count in calls.most_common() if count >= REQUESTS)
    assert 20 < each <= PYTHON_CALLS, f"{each:.1f} calls a request: {often}"


def test_a_request_on_a_kept_connection_is_a_wait_a_receive_and_a_send(spawn, traced):
    server = spawn(SCRIPT)
    client = server.connect()
    ask(client, 0)
    with traced(server.process.pid) as trace:
        for number in range(REQUESTS):
            ask(client, number)
    made = trace.count()
    ticks = REQUESTS / 10  # what a tick a second, and strace's own arrival, add
    assert made["sendto"] == REQUESTS
    assert made["recvfrom"] <= REQUESTS + ticks
    assert made["epoll_wait"] <= REQUESTS + ticks
    assert made.total() <= 3 * (REQUESTS + ticks), made


def test_a_crowd_is_accepted_in_few_turns_and_a_client_alone_by_one_accept(spawn, wait_until, traced):
    server = spawn(SCRIPT)
    process = psutil.Process(server.process.pid)
    process.suspend()
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
    clients = [server.connect() for _ in range(CROWD)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with traced(process.pid) as trace:
        process.resume()
        for client in clients:
            assert client.reply().body == b"ok"
    made = trace.count()
    assert CROWD <= made["accept4"] <= CROWD + 8, made
    assert made["epoll_wait"] <= CROWD / 2, made
    with traced(process.pid) as trace:
        began = time.monotonic()
        for number in range(REQUESTS):
            client = server.connect()
            ask(client, number)
            client.close()
        ticks = 1 + time.monotonic() - began  # in each of which somebody is looked for
    made = trace.count()
    assert REQUESTS <= made["accept4"] <= REQUESTS * 1.1 + ticks, made
