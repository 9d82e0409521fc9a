"""A WSGI application for tests of the hand-off: who answers, holds, dawdles, forks."""

import json
import os
import random
import sys
import threading
import time
from pathlib import Path

import plain

VERSION = Path("version").read_text() if Path("version").exists() else "1"
if Path("switch-often").exists():
    sys.setswitchinterval(1e-6)


def echo(environ):
    """The version, the rest of the path, and the body."""
    token = environ["PATH_INFO"].rpartition("/")[2]
    return f"{VERSION}:{os.getpid()} {token} ".encode() + environ["wsgi.input"].read()


def dawdle(environ):
    """The same, after 5 to 30 ms; noted in a file before."""
    note(environ)
    time.sleep(random.uniform(0.005, 0.03))
    return echo(environ)


def hurry(environ):
    """The same, after up to 3 ms of work: no thread that wants to run waits for its end."""
    note(environ)
    end = time.monotonic() + random.uniform(0.0005, 0.003)
    while time.monotonic() < end:
        pass
    return echo(environ)


def note(environ):
    with open("served", "ab", buffering=0) as file:
        file.write(environ["PATH_INFO"].rpartition("/")[2].encode() + b"\n")


def hold(environ):
    """/hold or /hold/<name>: until the test says so, to all or to this one."""
    (plain.HERE / f"begun-{os.getpid()}-{time.monotonic_ns()}").touch()
    name = environ["PATH_INFO"].rpartition("/")[2]
    wait_for("release", f"release-{name}")
    return str(os.getpid())


def wait_for(*names):
    while not any(Path(name).exists() for name in names):
        time.sleep(0.01)


def tell(environ):
    names = ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT", "HTTP_MARK")
    return json.dumps({name: environ.get(name) for name in names} | {"pid": os.getpid()})


def leak(environ):
    """Leave no descriptor free, until the test says so: `give-back`."""
    kept = []
    try:
        while True:
            kept.append(os.dup(0))
    except OSError:
        threading.Thread(target=give_back, args=(kept,)).start()
    return str(os.getpid())


def give_back(kept):
    # Without a descriptor there is no listing either: stat needs none
    wait_for("give-back")
    for fd in kept:
        os.close(fd)


def fork(environ):
    """A child that lives for a while of the request."""
    child = os.fork()
    if not child:
        time.sleep(0.02)
        os._exit(0)
    os.waitpid(child, 0)
    return echo(environ)


def run(environ):
    import subprocess

    subprocess.run(["sleep", "0.02"], check=True)
    return echo(environ)


def run_prepared(environ):
    """A function to call before the exec makes the interpreter fork as `os.fork` does."""
    import subprocess

    subprocess.run(["sleep", "0.02"], check=True, preexec_fn=os.getpid)
    return echo(environ)


def multiprocess(environ):
    import multiprocessing

    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.02,))
    child.start()
    child.join()
    child.close()
    return echo(environ)


def fork_and_return(environ):
    """A child that does not end where it should."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return echo(environ)


def fork_and_raise(environ):
    child = os.fork()
    if not child:
        raise ValueError("in the child")
    os.waitpid(child, 0)
    return echo(environ)


def fork_and_exit(environ):
    child = os.fork()
    if not child:
        sys.exit(0)
    os.waitpid(child, 0)
    return echo(environ)


def fork_and_hold(environ):
    """In hand until the test says so, with a child behind it that has ended."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return hold(environ)


def leave_child(environ):
    """A child that outlives the request, until the test says so."""
    if not os.fork():
        wait_for("release")
        os._exit(0)
    return str(os.getpid())


def leave_daemon(environ):
    """The same, in a session of its own."""
    if not os.fork():
        os.setsid()
        Path("daemon").touch()
        wait_for("release")
        Path("daemon-ended").touch()
        os._exit(0)
    wait_for("daemon")
    return str(os.getpid())


ROUTES = {
    "dawdle": dawdle,
    "echo": echo,
    "fork": fork,
    "fork-and-exit": fork_and_exit,
    "fork-and-hold": fork_and_hold,
    "fork-and-raise": fork_and_raise,
    "fork-and-return": fork_and_return,
    "hold": hold,
    "hurry": hurry,
    "leak": leak,
    "leave-child": leave_child,
    "leave-daemon": leave_daemon,
    "multiprocess": multiprocess,
    "run": run,
    "run-prepared": run_prepared,
    "tell": tell,
    "": plain.pid,
    "big": plain.big,
    "digest": plain.digest,
}


def app(environ, start_response):
    answer = ROUTES[environ["PATH_INFO"].split("/")[1]](environ)
    blocks = answer if isinstance(answer, list) else [answer.encode() if isinstance(answer, str) else answer]
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(sum(map(len, blocks))))])
    return blocks
