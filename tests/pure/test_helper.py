"""The helper's thread under forks, in a process of its own."""

import subprocess
import sys

SCRIPT = """
import os, threading

THREADS, FORKS = 3, 25
seen = []  # one for each fork: who else runs, at the last moment before it
os.register_at_fork(before=lambda: seen.append(", ".join(each.name for each in threading.enumerate())))

from minicorn.serving.helper import Helper  # later than that: what is registered last comes first

turn = threading.Event()
helper = Helper(0.001, turn.set)

def fork():
    for _ in range(FORKS):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)

helper.enter()
threads = [threading.Thread(target=fork, name="application") for _ in range(THREADS)]
helper.leave()
assert turn.wait(10)
for each in threads:
    each.start()
if REQUESTS:
    while any(each.is_alive() for each in threads):
        helper.enter()
        helper.leave()
for each in threads:
    each.join()
assert len(seen) == THREADS * FORKS
assert not any("minicorn-helper" in names for names in seen), seen
turn.clear()
assert turn.wait(10), "it goes on"
helper.enter()
helper.end()
assert threading.active_count() == 1
"""


def check(script: str) -> None:
    """Newer Pythons warn of any fork beside threads."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_that_fork_at_once_in_a_request_find_no_helper_running() -> None:
    check(SCRIPT.replace("REQUESTS", "False"))


def test_nor_do_threads_that_fork_while_requests_come_and_go() -> None:
    check(SCRIPT.replace("REQUESTS", "True"))
