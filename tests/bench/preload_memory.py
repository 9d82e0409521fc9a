"""Memory of a Django project with a table of 100 MB, its admin and many workers: what does preloading share?

    python tests/bench/preload_memory.py [--workers 8] [--requests 20000] [--everything] [--no-collections]

Requests read one row in a hundred, those always the same; with --everything each reads 1% anywhere, so
that all of the table is read by every worker in time: CPython counts references inside the objects, each
look writes, and no process can go on sharing what it has looked at. The floor that this sets is measured
first: what a forked process that does nothing but read the same rows makes its own. One request in a thousand
collects garbage, as a worker that lives long does sooner or later. Needs gunicorn and Django.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import django_project
from servers import CHECKOUT, Running, running

from minicorn.memory import Memory, read_memory

ROWS = 200_000
FLOOR = """
import gc, os, sys
sys.path[:0] = [os.getcwd(), {checkout!r}]
import site_wsgi
from minicorn.memory import read_memory
from site_urls import look
gc.collect()
gc.freeze()
gc.disable()
if os.fork() == 0:
    before = read_memory(os.getpid()).private
    for _ in range(2000):
        look(None)
    print(read_memory(os.getpid()).private - before, flush=True)
    os._exit(0)
os.wait()
"""


def load(port: int, requests: int) -> int:
    """At least so many requests, on keep-alive connections and new ones."""
    done = 0
    while done < requests:
        command = ["wrk", "-t1", "-c16", "-d2s", f"http://127.0.0.1:{port}/"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        done += int(re.findall(r"(\d+) requests in", output)[0])
    return done


def floor(folder: Path) -> int:
    """MiB that reading the rows once makes a process's own."""
    command = [sys.executable, "-c", FLOOR.format(checkout=str(CHECKOUT))]
    return int(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout) >> 20


def measure(server: Running) -> tuple[int, list[Memory]]:
    """PSS of all processes of the server, in MiB, and the children's figures."""
    children = [read_memory(child.pid) for child in server.root.children(recursive=True)]
    return sum(each.pss for each in [read_memory(server.root.pid), *children]) >> 20, children


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--no-collections", action="store_true")
    options = parser.parse_args()
    totals: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        django_project.write(Path(name), ROWS, options.everything, not options.no_collections)
        print(f"the floor: reading alone makes {floor(Path(name))} MiB a process's own")
        for server_name in ("minicorn", "gunicorn-preload", "minicorn-preload"):
            with running(server_name, "site_wsgi:application", workers=options.workers, cwd=Path(name)) as server:
                before, _ = measure(server)
                done = load(server.port, options.requests)
                after, children = measure(server)
            totals[server_name] = after
            private = sorted(each.private >> 20 for each in children)
            print(f"{server_name:17} PSS in all {before} MiB at first, {after} after {done} requests;")
            print(f"{'':17} private to each child, in MiB: {private}")
    share = totals["minicorn-preload"] / totals["gunicorn-preload"]
    print(f"minicorn --preload takes {share:.0%} of gunicorn --preload")


if __name__ == "__main__":
    main()
