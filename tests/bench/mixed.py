"""Fast requests beside slow ones: what does an instant request wait, and what would it at best?

    python tests/bench/mixed.py [--seconds 60] [--seed 1] [--extra="--handoff-after 0"]

8 workers, 40 keep-alive connections that each send a request, wait for the reply, and pause
(exponential, 50 ms in the mean); 2% of the requests sleep 0.5 s, the rest are instant. The same
streams (seeds) go through a simulated single queue with 8 servers, which no real dispatch beats.
"""

import argparse
import heapq
import random
import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator

from servers import running

WORKERS, CONNECTIONS = 8, 40
PAUSE, SLOW, SLOW_SHARE = 0.05, 0.5, 0.02
LATE = 0.1


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(SLOW)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def stream(seed: int, number: int) -> Iterator[tuple[float, bool]]:
    """The pauses and kinds of one connection's requests."""
    source = random.Random(seed * 1000 + number)
    while True:
        yield source.expovariate(1 / PAUSE), source.random() < SLOW_SHARE


class Client(threading.Thread):
    """One connection, opened for the first request and again where the server has closed it."""

    def __init__(self, port: int, seed: int, number: int, end: float) -> None:
        super().__init__()
        self.stream = stream(seed, number)
        self.port = port
        self.sock: socket.socket | None = None
        self.end = end
        self.instant: list[float] = []

    def run(self) -> None:
        for pause, slow in self.stream:
            time.sleep(pause)
            began = time.monotonic()
            if began > self.end:
                return
            self.ask(b"slow" if slow else b"fast")
            if not slow:
                self.instant.append(time.monotonic() - began)

    def ask(self, path: bytes) -> None:
        self.sock = self.sock or socket.create_connection(("127.0.0.1", self.port))
        self.sock.sendall(b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        reply = b""
        while not reply.endswith(b"\r\n\r\nok"):
            data = self.sock.recv(4096)
            assert data, reply
            reply += data
        assert reply.startswith(b"HTTP/1.1 200"), reply
        if b"connection: close" in reply.lower():
            self.sock.close()
            self.sock = None


def load(port: int, seed: int, seconds: float) -> list[float]:
    """How long the instant requests took."""
    end = time.monotonic() + seconds
    clients = [Client(port, seed, number, end) for number in range(CONNECTIONS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
        if client.sock:
            client.sock.close()
    return [wait for client in clients for wait in client.instant]


def simulate(seed: int, seconds: float, service: float) -> list[float]:
    """The waits of instant requests in a single queue, first come first served."""
    streams = [stream(seed, number) for number in range(CONNECTIONS)]
    events: list[tuple[float, int, int, bool]] = []  # when, order, connection (or -1: a server is free), slow
    order = 0

    def send_next(now: float, number: int) -> None:
        nonlocal order
        pause, slow = next(streams[number])
        order += 1
        heapq.heappush(events, (now + pause, order, number, slow))

    for number in range(CONNECTIONS):
        send_next(0.0, number)
    queue: deque[tuple[float, int, bool]] = deque()
    free = WORKERS
    waits = []
    while events:
        now, _, number, slow = heapq.heappop(events)
        if number < 0:
            free += 1
        elif now <= seconds:
            queue.append((now, number, slow))
        while free and queue:
            came, whose, is_slow = queue.popleft()
            done = now + (SLOW if is_slow else service)
            free -= 1
            order += 1
            heapq.heappush(events, (done, order, -1, False))
            send_next(done, whose)
            if not is_slow:
                waits.append(done - came)
    return waits


def late_share(waits: list[float]) -> float:
    return sum(wait > LATE for wait in waits) / len(waits)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--extra", default="")
    options = parser.parse_args()
    extra = "--max-keepalive-requests 0 " + options.extra
    with running("minicorn", "mixed:app", workers=WORKERS, extra=extra) as server:
        server.wait_log("is ready", WORKERS)
        waits = load(server.port, options.seed, options.seconds)
    best = simulate(options.seed, options.seconds, statistics.median(waits))
    for name, figures in (("minicorn", waits), ("single queue", best)):
        late = late_share(figures)
        p50 = statistics.median(figures)
        print(f"{name:13} {len(figures)} instant requests, {late * 100:.2f}% over 100 ms, p50 {p50 * 1e3:.2f} ms")
    print(f"ratio {late_share(waits) / late_share(best):.2f}")


if __name__ == "__main__":
    main()
