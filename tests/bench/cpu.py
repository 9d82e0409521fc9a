"""CPU time per request of minicorn and its peers, in one run.

    python tests/bench/cpu.py [--rounds 5] [--seconds 3] [server ...]

Each server runs one worker pinned to the first core, wrk with 32 keep-alive connections and
varying browser headers on the second. Rounds are interleaved; the figure is the median of
(user + system time of the process tree) / requests. Peers are whatever the interpreter that
runs this has installed (pip install gunicorn granian waitress); wrk is a Debian package.
"""

import argparse
import re
import statistics
import subprocess

from servers import HERE, running


def measure(name: str, seconds: int, app: str = "hello:app") -> tuple[float, float]:
    """Microseconds of CPU per request, and requests per second."""
    wrk = ["taskset", "-c", "1", "wrk", "-t1", "-c32", "-s", str(HERE / "browser.lua")]
    with running(name, app, cpu=0) as server:
        url = f"http://127.0.0.1:{server.port}/"
        subprocess.run([*wrk, "-d1s", url], check=True, stdout=subprocess.DEVNULL)
        before = server.cpu_time()
        output = subprocess.run([*wrk, f"-d{seconds}s", url], check=True, capture_output=True, text=True).stdout
        used = server.cpu_time() - before
    match = re.search(r"(\d+) requests in", output)
    if match is None or "Non-2xx" in output:
        raise SystemExit(output)
    return used / int(match[1]) * 1e6, int(match[1]) / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("servers", nargs="*", metavar="server", default=["minicorn", "gunicorn-sync", "granian"])
    options = parser.parse_args()
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in options.servers}
    for _ in range(options.rounds):
        for name in options.servers:
            results[name].append(measure(name, options.seconds))
    ours = statistics.median(cpu for cpu, _ in results[options.servers[0]])
    for name, figures in results.items():
        cpu = statistics.median(cpu for cpu, _ in figures)
        rate = statistics.median(rate for _, rate in figures)
        ratio = f"{options.servers[0]} takes {ours / cpu:.2f} of it"
        print(f"{name:14} {cpu:7.1f} us CPU/request  {rate:8.0f} requests/s  {ratio}")


if __name__ == "__main__":
    main()
