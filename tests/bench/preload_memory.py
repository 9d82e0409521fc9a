"""Memory of a Django project with a table of 100 MB, its admin and many workers: what does preloading share?

    python tests/bench/preload_memory.py [--workers 8] [--requests 20000] [--everything] [--no-collections]

Requests read one row in a hundred, those always the same; with --everything each reads 1% anywhere, so
that all of the table is read by every worker in time. Each 500th request that a process answers collects
garbage, as whoever lives long does sooner or later. Needs gunicorn and Django.

CPython counts references inside the objects: each look writes, and no process can go on sharing what it has
looked at. The floor that this sets is measured first: a process imports the project, freezes, forks, and its
child calls the application, without any server, as often as a worker would. Its own are then the pages that
hold the counts of the rows it has read, which are counted by their addresses, and what Django itself writes.
No server that forks workers can have less than one imported process, and the child's own for each of them.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import django_project
from servers import CHECKOUT, Running, running

from minicorn.system.process import read_memory

ROWS = 200_000
BARE = """
import gc, io, json, mmap, os, sys
from wsgiref.util import setup_testing_defaults
sys.path[:0] = [os.getcwd(), {checkout!r}]
from site_wsgi import application
from site_urls import HOT, TABLE
from minicorn.system.process import read_memory

def answer():
    environ = {{}}
    setup_testing_defaults(environ)
    reply = application(environ, lambda status, fields: None)
    assert b"".join(reply).isdigit()
    reply.close()

counted = (each for n in HOT for row in [TABLE[n]] for each in (row, row["name"], row["tags"], row["tags"][0]))
pages = len({{id(each) // mmap.PAGESIZE for each in counted}})
gc.collect()
gc.freeze()
imported = read_memory(os.getpid()).rss
if os.fork() == 0:
    for _ in range({requests}):
        answer()
    told = {{"imported": imported, "rows": pages * mmap.PAGESIZE, "own": read_memory(os.getpid()).private}}
    print(json.dumps(told), flush=True)
    os._exit(0)
os.wait()
"""


def measure_floor(folder: Path, requests: int) -> dict[str, float]:
    """In MiB: a process that has `imported`, what its child makes its `own`, and of that the `rows` read."""
    command = [sys.executable, "-c", BARE.format(checkout=str(CHECKOUT), requests=requests)]
    told = json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout)
    return {name: amount / 2**20 for name, amount in told.items()}


def load(port: int, requests: int) -> int:
    """At least so many requests, on keep-alive connections and new ones."""
    done = 0
    while done < requests:
        command = ["wrk", "-t1", "-c16", "-d2s", f"http://127.0.0.1:{port}/"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        done += int(re.findall(r"(\d+) requests in", output)[0])
    return done


def measure(server: Running) -> tuple[float, float]:
    """In MiB: PSS of all processes of the server, and the median of what each child has of its own."""
    children = [read_memory(child.pid) for child in server.root.children(recursive=True)]
    pss = sum(each.pss for each in [read_memory(server.root.pid), *children])
    return pss / 2**20, statistics.median(each.private for each in children) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--no-collections", action="store_true")
    options = parser.parse_args()
    totals: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        django_project.write(Path(name), ROWS, options.everything, not options.no_collections)
        bare = measure_floor(Path(name), options.requests // options.workers)
        print(f"CPython {sys.version.split()[0]}, {options.workers} workers; MiB")
        print(f"{'':17} {'PSS in all':>10} {'of a child':>14} {'requests':>9}")
        for server_name in ("minicorn", "gunicorn-preload", "minicorn-preload"):
            with running(server_name, "site_wsgi:application", workers=options.workers, cwd=Path(name)) as server:
                done = load(server.port, options.requests)
                totals[server_name], own = measure(server)
            print(f"{server_name:17} {totals[server_name]:10.0f} {own:14.1f} {done:9}")
    floor = bare["imported"] + options.workers * bare["own"]
    print(f"{'floor':17} {floor:10.0f} {bare['own']:14.1f}")
    print(f"floor: {bare['imported']:.0f} imported, and for each worker {bare['own']:.1f}, ", end="")
    print(f"of which {bare['rows']:.1f} are pages that hold the counts of the rows read")
    ours = totals["minicorn-preload"]
    print(f"minicorn --preload takes {ours / totals['gunicorn-preload']:.0%} of gunicorn --preload, ", end="")
    print(f"{ours / totals['minicorn']:.0%} of plain, {ours / floor:.2f} times the floor")


if __name__ == "__main__":
    main()
