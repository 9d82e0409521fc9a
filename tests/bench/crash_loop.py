"""What workers that die as soon as they serve cost.

    python tests/bench/crash_loop.py [--settle 45] [--seconds 30] [--workers 2]

An application that is imported, and whose process is killed half a second later, again and again.
Once the back-off has grown: forks a second for each slot, and the arbiter's share of a core.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path

from servers import running

APPLICATION = """
import os, signal, threading
from pathlib import Path

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]

if Path("doomed").exists():
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--settle", type=int, default=45)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.py").write_text(APPLICATION)
        with running("minicorn", "main:app", options.workers, cwd=Path(folder)) as server:
            server.wait_log("is ready", options.workers)
            (Path(folder) / "doomed").touch()
            for worker in server.root.children():
                worker.kill()
            time.sleep(options.settle)

            def births() -> int:
                return len(re.findall("is ready", server.log.read_text()))

            times = server.root.cpu_times()
            born, used = births(), times.user + times.system
            time.sleep(options.seconds)
            times = server.root.cpu_times()
            forks = (births() - born) / options.workers
            share = (times.user + times.system - used) / options.seconds
            (Path(folder) / "doomed").unlink()
    print(f"{options.seconds / max(forks, 1e-9):.1f} s between forks of a slot, the arbiter uses {share:.2%} of a core")


if __name__ == "__main__":
    main()
