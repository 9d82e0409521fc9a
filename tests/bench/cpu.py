"""CPU time per request of minicorn and its peers, in one run.

    python tests/bench/cpu.py [--rounds 5] [--seconds 3] [server ...]

Each server runs one worker pinned to the first core, wrk with 32 keep-alive connections and
varying browser headers on the second. Rounds are interleaved; the figure is the median of
(user + system time of the process tree) / requests. Peers are whatever the interpreter that
runs this has installed (pip install gunicorn granian).
"""

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent
SERVERS = {
    "minicorn": "-m minicorn hello:app --bind 127.0.0.1:{port}",
    "gunicorn-sync": "-m gunicorn hello:app --bind 127.0.0.1:{port}",
    "granian": "-m granian --interface wsgi hello:app --host 127.0.0.1 --port {port} --no-access-log",
    "waitress": "-m waitress --listen=127.0.0.1:{port} --threads=1 hello:app",
}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu_time(root: psutil.Process) -> float:
    """User and system seconds of a process tree so far, its reaped children included."""
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def wait_until_served(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if client.recv(100):
                    return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing answers on port {port}")


def measure(command: str, seconds: int) -> tuple[float, float]:
    """Microseconds of CPU per request, and requests per second."""
    port = free_port()
    env = os.environ | {"PYTHONPATH": str(HERE.parent.parent)}
    server = subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, *command.format(port=port).split()],
        cwd=HERE, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until_served(port)
        wrk = ["taskset", "-c", "1", "wrk", "-t1", "-c32", f"-d{seconds}s", "-s", str(HERE / "browser.lua")]
        url = f"http://127.0.0.1:{port}/"
        subprocess.run([*wrk[:-3], "-d1s", *wrk[-2:], url], check=True, stdout=subprocess.DEVNULL)
        root = psutil.Process(server.pid)
        before = cpu_time(root)
        output = subprocess.run([*wrk, url], check=True, capture_output=True, text=True).stdout
        used = cpu_time(root) - before
        match = re.search(r"(\d+) requests in", output)
        assert match, output
        if "Non-2xx" in output:
            raise SystemExit(output)
        return used / int(match[1]) * 1e6, int(match[1]) / seconds
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("servers", nargs="*", default=["minicorn", "gunicorn-sync", "granian"])
    options = parser.parse_args()
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in options.servers}
    for _ in range(options.rounds):
        for name in options.servers:
            results[name].append(measure(SERVERS[name], options.seconds))
    ours = statistics.median(cpu for cpu, _ in results[options.servers[0]])
    for name, figures in results.items():
        cpu = statistics.median(cpu for cpu, _ in figures)
        rate = statistics.median(rate for _, rate in figures)
        print(f"{name:14} {cpu:7.1f} us CPU/request  {rate:8.0f} requests/s  {options.servers[0]} takes {ours / cpu:.2f} of it")


if __name__ == "__main__":
    main()
