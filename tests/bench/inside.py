"""What it costs a hello-world request to be seen: heartbeat and counters, access log as text and as JSON.

    python tests/bench/inside.py [--rounds 20]

The issue allows 2, 6 and 9 microseconds of CPU. All servers are up at once on the first core,
one worker each, and wrk on the second asks one after the other for a second, in turns that go
back and forth: what the machine does meanwhile meets all of them alike. A figure is the median
of the rounds' differences, its quartiles beside it.
"""

import argparse
import contextlib
import itertools
import re
import statistics
import subprocess

from servers import HERE, Running, running

SERVERS = {
    "uncounted": ("minicorn", "uncounted:app"),
    "counted": ("minicorn", "hello:app"),
    "text": ("minicorn-text", "hello:app"),
    "json": ("minicorn-json", "hello:app"),
}
PAIRS = [("counted", "uncounted", 2), ("text", "counted", 6), ("json", "counted", 9)]


def ask(server: Running) -> float:
    """Microseconds of CPU that a request takes, over a second."""
    before = server.cpu_time()
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c32", "-d1s", "-s", str(HERE / "browser.lua")]
    url = f"http://127.0.0.1:{server.port}/"
    output = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    match = re.search(r"(\d+) requests in", output)
    if match is None or "Non-2xx" in output:
        raise SystemExit(output)
    return (server.cpu_time() - before) / int(match[1]) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    figures: dict[str, list[float]] = {name: [] for name in SERVERS}
    with contextlib.ExitStack() as stack:
        # The uncounted worker never says that it has booted
        up = {
            name: stack.enter_context(running(*server, cpu=0, extra="--boot-timeout 3600"))
            for name, server in SERVERS.items()
        }
        for server in up.values():
            ask(server)
        for number, name in itertools.product(range(rounds), SERVERS):
            name = name if number % 2 else list(SERVERS)[-1 - list(SERVERS).index(name)]
            figures[name].append(ask(up[name]))
    for name, each in figures.items():
        print(f"{name:10} {statistics.median(each):6.2f} us of CPU a request")
    for name, without, allowed in PAIRS:
        added = [a - b for a, b in zip(figures[name], figures[without], strict=True)]
        low, middle, high = statistics.quantiles(added, n=4)
        print(f"{name:10} adds {middle:5.2f} us (quartiles {low:.2f} to {high:.2f}; {allowed} are allowed)")


if __name__ == "__main__":
    main()
