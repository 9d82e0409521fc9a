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

helper.begin()
threads = [threading.Thread(target=fork, name="application") for _ in range(THREADS)]
helper.release()
assert turn.wait(10)
for each in threads:
    each.start()
if REQUESTS:
    while any(each.is_alive() for each in threads):
        helper.acquire()
        helper.release()
for each in threads:
    each.join()
assert len(seen) == THREADS * FORKS
assert not any("minicorn-helper" in names for names in seen), seen
turn.clear()
assert turn.wait(10), "it goes on"
helper.acquire()
helper.end()
assert threading.active_count() == 1
"""


# An application's alarm that goes off while its worker waits for the helper's turn to end
ALARM = """
import signal, threading
from minicorn.serving.helper import Helper

turn, go_on = threading.Event(), threading.Event()
helper = Helper(0.001, lambda: (turn.set(), go_on.wait()))

def ring(signum, frame):
    go_on.set()
    raise TimeoutError

signal.signal(signal.SIGALRM, ring)
helper.begin()
for _ in range(3):
    go_on.clear()
    turn.clear()
    helper.release()
    assert turn.wait(10)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        helper.acquire()
    except TimeoutError:
        helper.acquire()
helper.release()
helper.acquire()
helper.end()
"""


def check(script: str) -> None:
    """Newer Pythons warn of any fork beside threads."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_that_fork_at_once_in_a_request_find_no_helper_running() -> None:
    check(SCRIPT.replace("REQUESTS", "False"))


def test_nor_do_threads_that_fork_while_requests_come_and_go() -> None:
    check(SCRIPT.replace("REQUESTS", "True"))


def test_the_connections_are_ours_again_though_a_signal_handler_raises_on_the_way() -> None:
    check(ALARM)
