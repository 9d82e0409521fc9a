"""From a worker's death to its replacement being READY: a Django project, plain and preloaded.

python tests/bench/respawn.py [--rounds 20] [--rows 20000]
"""

import argparse
import os
import re
import signal
import statistics
import tempfile
import time
from pathlib import Path

import django_project
from servers import Running, running

from minicorn.pool.backoff import HEALTHY


def respawn(server: Running, victim: int) -> float:
    """Seconds from SIGKILL to the line that says READY."""
    ready = server.log.read_text().count("is ready after")
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    while server.log.read_text().count("is ready after") <= ready:
        time.sleep(0.0005)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        django_project.write(Path(name), options.rows)
        for server_name in ("minicorn", "minicorn-preload"):
            with running(server_name, "site_wsgi:application", workers=options.rounds, cwd=Path(name)) as server:
                server.wait_log("is ready after", options.rounds)
                time.sleep(HEALTHY)  # one that dies younger is a crash loop's
                victims = re.findall(r"worker (\d+) \(.*\) is ready", server.log.read_text())
                took = [respawn(server, int(victim)) * 1e3 for victim in victims]
            print(
                f"{server_name:17} median {statistics.median(took):.0f} ms, "
                f"from {min(took):.0f} to {max(took):.0f} ms, of {len(took)}"
            )


if __name__ == "__main__":
    main()
