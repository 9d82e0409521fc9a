"""A reply on a slow link, while its worker is in the application with the next request.

    python tests/bench/slow_link.py [--rounds 5]

One worker; a client with TCP_MAXSEG 536 and a small receive buffer asks for 1 MB and reads it at
a steady pace. In every other round a second client sends a request that sleeps 2 s as soon as
the reply has begun. The figure: how much later the last byte comes then (medians).
"""

import argparse
import socket
import statistics
import tempfile
import time
from pathlib import Path

from servers import running

SIZE = 2**20
APPLICATION = f"""
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(2)
    body = b"x" * ({SIZE} if environ["PATH_INFO"] == "/large" else 2)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


def ask(client: socket.socket, path: str) -> None:
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def read_slowly(port: int, disturbed: bool) -> float:
    """Seconds from the request to the last byte."""
    with socket.socket() as client, socket.create_connection(("127.0.0.1", port)) as other:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        client.connect(("127.0.0.1", port))
        ask(other, "/")
        other.recv(65536)
        began = time.monotonic()
        ask(client, "/large")
        received = len(client.recv(4096))
        if disturbed:
            ask(other, "/sleep")
        while received < SIZE:
            received += len(client.recv(4096))
            time.sleep(0.001)
        took = time.monotonic() - began
        if disturbed:
            other.recv(65536)
        return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.py").write_text(APPLICATION)
        for name in ("minicorn", "minicorn-alone"):
            with running(name, "main:app", cwd=Path(folder)) as server:
                port = server.port
                pairs = [(read_slowly(port, False), read_slowly(port, True)) for _ in range(options.rounds)]
            calm, disturbed = (statistics.median(figures) * 1e3 for figures in zip(*pairs, strict=True))
            print(f"{name:15} {calm:.0f} ms alone, {disturbed - calm:.0f} ms more beside a sleeping request")


if __name__ == "__main__":
    main()
