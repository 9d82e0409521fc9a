"""What slow clients cost the good ones.

    python tests/bench/slow_clients.py [--rounds 3] [--seconds 4]

2 workers; 8 good keep-alive clients (wrk) alone, then beside 300 connections that dribble a
byte a second, 100 that say nothing and 50 that do not read a 5 MB reply. Interleaved rounds;
the figure is the median of the ratios of their throughput.
"""

import argparse
import contextlib
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from servers import running, throughput

APPLICATION = """
BIG = b"x" * 5_000_000

def app(environ, start_response):
    body = BIG if environ["PATH_INFO"] == "/big" else b"Hello, world!"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"x" * 4000


class Slow(threading.Thread):
    """450 bad clients in one thread; whoever is hung up on comes again."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.ended = threading.Event()
        self.established = threading.Event()
        self.kinds = ["dribble"] * 300 + ["silent"] * 100 + ["deaf"] * 50
        self.sockets: list[socket.socket] = []
        self.sent: list[int] = [0] * len(self.kinds)

    def connect(self, kind: str) -> socket.socket:
        sock = socket.socket()
        if kind == "deaf":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", self.port))
        if kind == "deaf":
            sock.sendall(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.setblocking(False)
        return sock

    def run(self) -> None:
        self.sockets = [self.connect(kind) for kind in self.kinds]
        self.established.set()
        while not self.ended.wait(1.0):
            for number, kind in enumerate(self.kinds):
                self.turn(number, kind)
        for sock in self.sockets:
            sock.close()

    def turn(self, number: int, kind: str) -> None:
        try:
            if kind == "dribble":
                self.sockets[number].send(HEAD[self.sent[number] : self.sent[number] + 1])
                self.sent[number] += 1
            if kind != "deaf" and self.sockets[number].recv(4096) == b"":
                raise ConnectionError
        except BlockingIOError:
            pass
        except OSError:
            self.sockets[number].close()
            self.sockets[number] = self.connect(kind)
            self.sent[number] = 0


@contextlib.contextmanager
def slow_clients(port: int, present: bool) -> Iterator[None]:
    if not present:
        yield
        return
    slow = Slow(port)
    slow.start()
    slow.established.wait(60)
    try:
        yield
    finally:
        slow.ended.set()
        slow.join()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.py").write_text(APPLICATION)
        with running("minicorn", "main:app", workers=2, cwd=Path(folder)) as server:
            for _ in range(options.rounds):
                rates = {}
                for present in (False, True):
                    with slow_clients(server.port, present):
                        time.sleep(2 if present else 0.2)
                        rates[present] = throughput(server.port, 8, options.seconds)
                ratios.append(rates[True] / rates[False])
                print(f"alone {rates[False]:.0f} requests/s, beside slow clients {rates[True]:.0f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
