"""Does work spread over the workers, whoever accepted the connections?

    python tests/bench/spread.py [--seconds 4]

4 workers, an application that sleeps 3 ms, some keep-alive connections without pause: requests a
second beside what as many independent loops of the same sleep achieve in the same run. Then 2
workers that compute for 3 ms (of CPU time), with wrk beside them, against 2 such processes.
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

from servers import running, throughput

APPLICATION = """
import time

def sleep():
    time.sleep(0.003)

def compute():
    end = time.thread_time() + 0.003
    while time.thread_time() < end:
        pass

def app(environ, start_response):
    work()
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


def compute_loop(seconds: float, turns: "multiprocessing.Queue[int]") -> None:
    """Put how often 3 ms of CPU time were spent."""
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        done = time.thread_time() + 0.003
        while time.thread_time() < done:
            pass
        count += 1
    turns.put(count)


def independent_processes(count: int, seconds: float) -> float:
    """Computations of 3 ms a second by `count` processes."""
    turns: multiprocessing.Queue[int] = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=compute_loop, args=[seconds, turns]) for _ in range(count)]
    for process in processes:
        process.start()
    total = sum(turns.get() for _ in processes)
    for process in processes:
        process.join()
    return total / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--extra", default="")
    options = parser.parse_args()
    cases = [(4, "sleep", connections) for connections in (4, 6, 8, 40)] + [(2, "compute", 8), (2, "compute", 32)]
    with tempfile.TemporaryDirectory() as folder:
        for workers, work, connections in cases:
            (Path(folder) / "main.py").write_text(f"{APPLICATION}\nwork = {work}\n")
            with running("minicorn", "main:app", workers, cwd=Path(folder), extra=options.extra) as server:
                server.wait_log("is ready", workers)
                loops = independent_loops if work == "sleep" else independent_processes
                possible = loops(workers, options.seconds)
                rate = throughput(server.port, connections, options.seconds)
            print(
                f"{workers} workers {work}, {connections:2} connections: "
                f"{rate:5.0f} requests/s of {possible:.0f} possible, {rate / possible:.2f}"
            )


if __name__ == "__main__":
    main()
