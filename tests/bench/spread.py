"""Does work spread over the workers, whoever accepted the connections?

    python tests/bench/spread.py [--seconds 4]

4 workers, an application that sleeps 3 ms, some keep-alive connections without pause: requests a
second beside what as many independent loops of the same sleep achieve in the same run.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

from servers import running, throughput

APPLICATION = """
import time

def app(environ, start_response):
    time.sleep(0.003)
    body = f"ok {environ['PATH_INFO'].rpartition('/')[2]}".encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""


def independent_loops(count: int, seconds: float) -> float:
    """Sleeps of 3 ms a second by `count` loops."""
    turns = [0] * count
    end = time.monotonic() + seconds

    def loop(number: int) -> None:
        while time.monotonic() < end:
            time.sleep(0.003)
            turns[number] += 1

    threads = [threading.Thread(target=loop, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(turns) / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--extra", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.py").write_text(APPLICATION)
        for connections in (4, 6, 8, 40):
            with running("minicorn", "main:app", workers=4, cwd=Path(folder), extra=options.extra) as server:
                server.wait_log("is ready", 4)
                possible = independent_loops(4, options.seconds)
                rate = throughput(server.port, connections, options.seconds)
            share = rate / possible
            print(f"{connections:3} connections: {rate:6.0f} requests/s of {possible:.0f} possible, {share:.2f}")


if __name__ == "__main__":
    main()
