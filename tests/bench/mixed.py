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
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from servers import running

WORKERS, CONNECTIONS = 8, 40
PAUSE, SLOW, SLOW_SHARE = 0.05, 0.5, 0.02
LATE = 0.1
APPLICATION = """
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.5)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


def stream(seed: int, number: int) -> Iterator[tuple[float, bool]]:
    """The pauses and kinds of one connection's requests."""
    source = random.Random(seed * 1000 + number)
    while True:
        yield source.expovariate(1 / PAUSE), source.random() < SLOW_SHARE


class Client(threading.Thread):
    """One connection."""

    def __init__(self, port: int, seed: int, number: int, end: float) -> None:
        super().__init__()
        self.stream = stream(seed, number)
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.end = end
        self.instant: list[float] = []
        self.slow = 0

    def run(self) -> None:
        with self.sock:
            for pause, slow in self.stream:
                time.sleep(pause)
                began = time.monotonic()
                if began > self.end:
                    return
                self.sock.sendall(b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"slow" if slow else b"fast"))
                reply = self.sock.recv(4096)
                assert reply.startswith(b"HTTP/1.1 200") and reply.endswith(b"ok"), reply
                if slow:
                    self.slow += 1
                else:
                    self.instant.append(time.monotonic() - began)


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
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.py").write_text(APPLICATION)
        extra = "--max-keepalive-requests 0 " + options.extra
        with running("minicorn", "main:app", workers=WORKERS, cwd=Path(folder), extra=extra) as server:
            server.wait_log("is ready", WORKERS)
            end = time.monotonic() + options.seconds
            clients = [Client(server.port, options.seed, number, end) for number in range(CONNECTIONS)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
    waits = [wait for client in clients for wait in client.instant]
    best = simulate(options.seed, options.seconds, statistics.median(waits))
    for name, figures in (("minicorn", waits), ("single queue", best)):
        late = late_share(figures)
        p50 = statistics.median(figures)
        print(f"{name:13} {len(figures)} instant requests, {late * 100:.2f}% over 100 ms, p50 {p50 * 1e3:.2f} ms")
    print(f"ratio {late_share(waits) / late_share(best):.2f}")


if __name__ == "__main__":
    main()
