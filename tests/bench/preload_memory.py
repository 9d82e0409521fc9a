"""Memory of a Django project with a table of 100 MB, its admin and many workers: what does preloading share?

    python tests/bench/preload_memory.py [--workers 8] [--requests 20000] [--everything]

Requests read one row in a hundred, those always the same; with --everything each reads 1% anywhere, so
that all of the table is read by every worker in time: CPython counts references inside the objects, each
look writes, and no process can go on sharing what it has looked at. Needs gunicorn and Django.
"""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

import django_project
from servers import Running, running

from minicorn.memory import Memory, read_memory

ROWS = 200_000


def load(port: int, requests: int) -> int:
    """At least so many requests, on keep-alive connections and new ones."""
    done = 0
    while done < requests:
        command = ["wrk", "-t1", "-c16", "-d2s", f"http://127.0.0.1:{port}/"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        done += int(re.findall(r"(\d+) requests in", output)[0])
    return done


def measure(server: Running) -> tuple[int, list[Memory]]:
    """PSS of all processes of the server, in MiB, and the children's figures."""
    children = [read_memory(child.pid) for child in server.root.children(recursive=True)]
    return sum(each.pss for each in [read_memory(server.root.pid), *children]) >> 20, children


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--everything", action="store_true")
    options = parser.parse_args()
    totals: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        django_project.write(Path(name), ROWS, options.everything)
        for server_name in ("minicorn", "gunicorn-preload", "minicorn-preload"):
            with running(server_name, "site_wsgi:application", workers=options.workers, cwd=Path(name)) as server:
                before, _ = measure(server)
                done = load(server.port, options.requests)
                totals[server_name], children = measure(server)
            private = sorted(each.private >> 20 for each in children)
            print(
                f"{server_name:17} PSS in all {before:5} MiB at first, {totals[server_name]:5} MiB after {done} requests;"
            )
            print(f"{'':17} private to each child, in MiB: {private}")
    share = totals["minicorn-preload"] / totals["gunicorn-preload"]
    print(f"minicorn --preload takes {share:.0%} of gunicorn --preload")


if __name__ == "__main__":
    main()
