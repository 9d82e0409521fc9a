"""What --reload costs while nobody edits: a tree of 20,000 files, and a node_modules of 15,000 beside it.

    python tests/bench/reload_idle.py [--rounds 7] [--seconds 20]

Start-up with --reload and without, by turns: from the start of the command to the first reply. Then the
share of a core that all processes use together, with inotify, and without: where the system gives no
inotify instance (a user namespace with a limit of none), files are polled.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from servers import CHECKOUT, await_true, free_port

APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"here"]
"""
WITHOUT_INOTIFY = ["unshare", "-r", "sh", "-c", 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"', "sh"]


def make_tree(folder: Path) -> None:
    (folder / "main.py").write_text(APP)
    for place, count in (("package", 20_000), ("node_modules/package", 15_000)):
        for number in range(count):
            path = folder / f"{place}{number // 20}" / f"module{number}.py"
            if number % 20 == 0:
                path.parent.mkdir(parents=True)
            path.write_text(f"NUMBER = {number}\n")


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@contextmanager
def running(folder: Path, *flags: str, prefix: tuple[str, ...] = ()) -> Iterator[tuple[psutil.Process, float]]:
    """A server, and the seconds until it has answered."""
    port = free_port()
    command = [*prefix, sys.executable, "-m", "minicorn", "main:app", "--bind", f"127.0.0.1:{port}", *flags]
    began = time.monotonic()
    env = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.DEVNULL)
    try:
        await_true(lambda: answers(port), 30, "it answers")
        yield psutil.Process(process.pid), time.monotonic() - began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def used(root: psutil.Process) -> float:
    """Seconds of processor time of the whole tree."""
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def settle(root: psutil.Process) -> None:
    """Until what there is to read has been read: half a second without work to speak of."""
    before = -1.0
    while (now := used(root)) - before > 0.1:
        before = now
        time.sleep(0.5)
    time.sleep(3)


def measure_idle(folder: Path, seconds: float, prefix: tuple[str, ...] = ()) -> float:
    """The share of a core in percent."""
    with running(folder, "--reload", prefix=prefix) as (root, _):
        settle(root)
        before, began = used(root), time.monotonic()
        time.sleep(seconds)
        return (used(root) - before) / (time.monotonic() - began) * 100


def measure_start(folder: Path, rounds: int) -> tuple[float, float]:
    """Median milliseconds to the first reply, without --reload and with it."""
    took: dict[str, list[float]] = {"": [], "--reload": []}
    for _ in range(rounds):
        for flags, found in took.items():
            with running(folder, *flags.split()) as (_, seconds):
                found.append(seconds * 1000)
    return statistics.median(took[""]), statistics.median(took["--reload"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        make_tree(folder)
        without, with_it = measure_start(folder, options.rounds)
        print(f"start-up {without:.0f} ms, with --reload {with_it:.0f} ms: {with_it - without:+.0f} ms", flush=True)
        print(f"idle with inotify {measure_idle(folder, options.seconds):.2f}% of a core", flush=True)
        print(f"idle with polling {measure_idle(folder, options.seconds, tuple(WITHOUT_INOTIFY)):.2f}% of a core")


if __name__ == "__main__":
    main()
