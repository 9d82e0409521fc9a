"""How long does a new connection wait while some worker is idle?

    python tests/bench/newcomers.py [--count 300] [--workers 4]

All workers but one are kept inside the application by requests that sleep for 2 s; new
connections, one after the other at random times, each send one instant request at once. The figure
is from the call of connect() to the first byte of the reply.
"""

import argparse
import random
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

from servers import running

APPLICATION = """
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(2)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


def ask(port: int, path: str) -> float:
    """Seconds from connecting to the first byte."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    random.seed(1)
    done = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.py").write_text(APPLICATION)
        with running("minicorn", "main:app", options.workers, cwd=Path(folder)) as server:
            server.wait_log("is ready", options.workers)

            def keep_busy() -> None:
                while not done.is_set():
                    ask(server.port, "/slow")

            threads = [threading.Thread(target=keep_busy) for _ in range(options.workers - 1)]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            waits = []
            for _ in range(options.count):
                time.sleep(random.expovariate(20))
                waits.append(ask(server.port, "/") * 1000)
            done.set()
            for thread in threads:
                thread.join()
    waits.sort()
    middle, late = statistics.median(waits), waits[int(len(waits) * 0.99)]
    print(f"{len(waits)} new connections: median {middle:.2f} ms, 99% {late:.2f} ms, longest {waits[-1]:.2f} ms")


if __name__ == "__main__":
    main()
