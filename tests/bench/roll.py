"""Rolling restarts under load: what do clients notice?

    python tests/bench/roll.py [--hups 10] [--clients 16] [--workers 4]

An application whose import sleeps 2 s; HUP, each a second after the last roll's end, under
keep-alive clients that check every byte; the same clients as long without HUP before.
"""

import argparse
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from servers import running

sys.path.append(str(Path(__file__).parent.parent / "process"))
from load import Load

APPLICATION = """
import os, time
time.sleep(2)
WORD = open("word").read().strip()

def app(environ, start_response):
    body = f"{WORD} {environ['PATH_INFO'].rpartition('/')[2]} ".encode() + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hups", type=int, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "main.py").write_text(APPLICATION)
        (folder / "word").write_text("word-1")
        with running("minicorn", "main:app", workers=options.workers, cwd=folder) as server:
            server.wait_log("is ready", options.workers)
            with Load(server.port, options.clients, pause=0.005) as calm:
                time.sleep(20)
            with Load(server.port, options.clients, pause=0.005) as rolling:
                for number in range(2, options.hups + 2):
                    (folder / "word").write_text(f"word-{number}")
                    pids = {child.pid for child in server.root.children()}
                    server.process.send_signal(signal.SIGHUP)
                    server.wait_log(rf"generation {number} serves")
                    assert pids.isdisjoint(child.pid for child in server.root.children()), "a worker was not replaced"
                    time.sleep(1)
            generations = options.hups + 1
            for _ in range(10):
                server.process.send_signal(signal.SIGHUP)
                time.sleep(0.1)
            time.sleep(5)
            server.wait_log(rf"generation {generations + 1} serves")
            time.sleep(25)
            rolls = len(re.findall("rolling to", server.log.read_text())) - options.hups
            took = re.findall(r"replaced in ([\d.]+) s", server.log.read_text())
    words = rolling.tally.words
    print(f"{options.hups} rolls of {options.workers} workers, each took {', '.join(took[: options.hups])} s")
    print(f"requests {rolling.tally.requests}, wrong or cut or reset: {len(rolling.tally.failures)}")
    print(f"connections closed while idle: {len(rolling.tally.idle_closes)}")
    print(f"codes that answered: {len(words)} of {options.hups + 1}")
    for share in (0.5, 0.99, 0.999, 1.0):
        without, with_ = calm.tally.percentile(share), rolling.tally.percentile(share)
        print(f"p{share * 100:g}: {without * 1e3:.1f} ms without HUP, {with_ * 1e3:.1f} ms with")
    print(f"ten HUPs within a second: {rolls} rolls")
    for failure in rolling.tally.failures[:10]:
        print("  ", failure)


if __name__ == "__main__":
    main()
